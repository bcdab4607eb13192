"""CODA beside LeapLabTHU/CODA."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.layers.grid_vq import as_grid
from reference_impls.tokenizers.coda import Coda, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> Coda:
    """The module that the release's configuration describes."""
    return Coda(**release_arguments(config))


def outputs(module: Coda, case: ParityCase) -> dict[str, Tensor]:
    """The bottleneck, its first and last scale, and the image; of the mean, not of a sample."""
    quantizer = module.quantizer
    encoded = module.normalised(module.vae.posterior(case.inputs["images"]).mean)
    given = quantizer(encoded)
    first = quantizer.scales[0]
    rows = quantizer.values()[given.codes[:, : first**2]]
    return {
        "encoded": encoded,
        "logits_last_scale": as_grid(given.logits, quantizer.scales[-1]),
        "tokens": given.codes,
        "quantized": given.quantized,
        "codes_first_scale": as_grid(rows, first),
        "reconstruction": module.decode_grid(given.quantized),
        "decoded_tokens": module.decode_grid(quantizer.lookup(given.codes, *given.quantized.shape[2:])),
    }


PARITY = Parity(build=build, outputs=outputs)
