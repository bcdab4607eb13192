"""MaskGIT-VQGAN beside the port in bytedance/1d-tokenizer."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.parity._maskgit import conv_stages
from reference_impls.parity._taps import tapped
from reference_impls.tokenizers.maskgit_vq import MaskGitVQ, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> MaskGitVQ:
    """The module that the release's configuration describes."""
    return MaskGitVQ(**release_arguments(config))


def outputs(module: MaskGitVQ, case: ParityCase) -> dict[str, Tensor]:
    """Every level, the codes, and both ways to the image."""
    with tapped(conv_stages(module.encoder, module.decoder)) as seen:
        quantized = module.quantize_images(case.inputs["image"])
        reconstruction = module.decode_latents(quantized.quantized)
    grid = seen["encoded"].shape
    return seen | {
        "tokens": quantized.codes,
        "quantized": quantized.quantized.transpose(1, 2).reshape(grid),
        "reconstruction": reconstruction,
        "decoded_tokens": module.decode_codes(quantized.codes).clamp(0.0, 1.0),
    }


PARITY = Parity(build=build, outputs=outputs)
