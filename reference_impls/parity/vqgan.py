"""VQGAN and its Gumbel variant beside CompVis/taming-transformers."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.parity._ldm import grid_outputs, of_whole_size
from reference_impls.tokenizers.vqgan import VQGAN, GumbelQuantizer, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], variant: str) -> VQGAN:
    """The module that the release's configuration describes; only its name says which of the two forms it is."""
    arguments = of_whole_size(release_arguments(config), len(config["ddconfig"]["ch_mult"]))
    return VQGAN(**{**arguments, "gumbel": "gumbel" in variant})


def outputs(module: VQGAN, case: ParityCase) -> dict[str, Tensor]:
    """Every level, the codes with and without noise, and both ways to the image."""
    quantize = module.quantize
    if not isinstance(quantize, GumbelQuantizer):
        return grid_outputs(module, case.inputs["image"])
    noise = as_rows(case.inputs["noise"])
    found = grid_outputs(module, case.inputs["image"], lambda rows: quantize(rows, noise))
    batch, _, height, width = found["encoded"].shape
    logits = quantize.logits(as_rows(found["encoded"]))
    plain = logits.argmax(-1)
    return found | {
        "logits": as_grid(logits, height, width),
        "tokens": found["tokens"].reshape(batch, height, width),
        "tokens_without_noise": plain.reshape(batch, height, width),
        "decoded_tokens": module.decode_grid(as_grid(quantize.lookup(plain), height, width)),
    }


PARITY = Parity(build=build, outputs=outputs)
