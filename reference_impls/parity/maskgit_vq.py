"""MaskGIT-VQGAN beside the port in bytedance/1d-tokenizer."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.layers.grid_vq import as_grid
from reference_impls.parity._ldm import of_whole_size
from reference_impls.parity._maskgit import conv_stages
from reference_impls.parity._taps import tapped
from reference_impls.tokenizers.maskgit_vq import MaskGitVQ, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> MaskGitVQ:
    """The module that the release's configuration describes."""
    return MaskGitVQ(**of_whole_size(release_arguments(config), len(config["channel_mult"])))


def outputs(module: MaskGitVQ, case: ParityCase) -> dict[str, Tensor]:
    """Every level, the codes, and both ways to the image, whatever its size."""
    with tapped(conv_stages(module.encoder, module.decoder)) as seen:
        quantized = module.quantize_images(case.inputs["image"])
        height, width = seen["encoded"].shape[2:]
        rows = as_grid(quantized.quantized, height, width)
        reconstruction = module.decode_grid(rows)
    looked_up = as_grid(module.quantize.lookup(quantized.codes), height, width)
    return seen | {
        "tokens": quantized.codes,
        "quantized": rows,
        "reconstruction": reconstruction,
        "decoded_tokens": module.decode_grid(looked_up).clamp(0.0, 1.0),
    }


PARITY = Parity(build=build, outputs=outputs)
