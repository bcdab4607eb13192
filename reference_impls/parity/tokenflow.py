"""TokenFlow beside ByteVisionLab/TokenFlow."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.tokenizers.tokenflow import TokenFlow, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> TokenFlow:
    """The module that the release's configuration describes."""
    return TokenFlow(**release_arguments(config))


def outputs(module: TokenFlow, case: ParityCase) -> dict[str, Tensor]:
    """Both branches, their common codes, and what these decode to, also without the finest scale."""
    signed = case.inputs["images"]
    semantic, pixel = module.semantic_features(signed), module.pixel_features(signed)
    quantized = module.quantize(torch.cat([semantic, as_rows(pixel)], dim=-1))
    prefix = quantized.codes[:, : module.max_tokens - module.grid**2]
    return {
        "semantic_features": semantic,
        "pixel_features": pixel,
        "tokens": quantized.codes,
        "quantized": as_grid(quantized.quantized, module.grid),
        "semantic_reconstruction": module.decode_semantics(quantized.quantized),
        "reconstruction": module.decode_pixels(quantized.quantized),
        "reconstruction_from_tokens": module.decode_pixels(module.quantize.lookup(quantized.codes)),
        "reconstruction_from_prefix": module.decode_pixels(module.quantize.lookup(prefix)),
    }


PARITY = Parity(build=build, outputs=outputs)
