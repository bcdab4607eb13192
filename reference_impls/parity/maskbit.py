"""MaskBit's tokenizers beside markweberdev/maskbit."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.parity._maskgit import conv_stages
from reference_impls.parity._taps import tapped
from reference_impls.tokenizers.maskbit import MaskBit, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> MaskBit:
    """The module that the release's configuration describes."""
    return MaskBit(**release_arguments(config))


def outputs(module: MaskBit, case: ParityCase) -> dict[str, Tensor]:
    """Every level, the codes, and both ways to the image, for images of any size."""
    with tapped(conv_stages(module.encoder, module.decoder)) as seen:
        encoded = module.encode_grid(case.inputs["image"])
        height, width = encoded.shape[2:]
        quantized = module.quantize(as_rows(encoded))
        rows = as_grid(quantized.quantized, height, width)
        reconstruction = module.decode_grid(rows)
    return seen | {
        "tokens": quantized.codes.unflatten(1, (height, width)),
        "quantized": rows,
        "reconstruction": reconstruction,
        "decoded_tokens": module.decode_grid(as_grid(module.quantize.lookup(quantized.codes), height, width)),
    }


PARITY = Parity(build=build, outputs=outputs)
