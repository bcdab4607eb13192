"""GaussianToken beside ChrisDong-THU/GaussianToken; its rasteriser beside the formula of its kernels."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from reference_impls.layers.tokenizer import from_signed
from reference_impls.parity._taps import tapped
from reference_impls.tokenizers.gaussiantoken import GaussianToken, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> GaussianToken:
    """The module that the release's configuration describes."""
    return GaussianToken(**release_arguments(config))


def outputs(module: GaussianToken, case: ParityCase) -> dict[str, Tensor]:
    """The Gaussians, their codes, the map that they make, and the image, also of a given map."""
    with tapped({"encoder_map": module.encoder}) as seen:
        found = module.gaussians(from_signed(case.inputs["images"]))
    codes = module.quantize(found.features)
    quantized = replace(found, features=module.quantize.lookup(codes))
    return seen | {
        "means": found.means,
        "scales": found.scales,
        "rotations": found.rotations,
        "encoded": found.features,
        "tokens": codes,
        "quantized": quantized.features,
        "feature_map_formula": module.drawn(quantized),
        "reconstruction_formula": module.decode_gaussians(quantized),
        "decoded_given_map": module.decoder(case.inputs["feature_map"]),
    }


PARITY = Parity(build=build, outputs=outputs)
