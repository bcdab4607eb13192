"""ImageFolder and the XQ-GAN zoo beside lxa9867/ImageFolder."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.layers.grid_vq import as_grid
from reference_impls.layers.multiscale import MultiScaleQuantizer
from reference_impls.parity._taps import tapped
from reference_impls.tokenizers.imagefolder import ImageFolder, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> ImageFolder:
    """The module that the release's configuration describes."""
    return ImageFolder(**release_arguments(config))


def outputs(module: ImageFolder, case: ParityCase) -> dict[str, Tensor]:
    """Both transformers, every branch's codes and sums, and the image, also of the coarsest scale alone."""
    signed = case.inputs["images"]
    stages = {
        "encoder_tokens": module.encoder,
        "post_quant": module.post_quant_conv,
        "decoder_unclamped": module.decoder,
    }
    with tapped(stages) as seen:
        latents = module.encode_latents(signed)
        found: dict[str, Tensor] = {"encoded": _as_release(latents, module)}
        codes = []
        for index, part in enumerate(latents.chunk(module.branches, dim=1)):
            quantized = module.quantizers[index](part)
            codes.append(quantized.codes)
            found[f"tokens_branch{index}"] = quantized.codes
            found[f"quantized_branch{index}"] = as_grid(quantized.quantized, module.grid)
        packed = codes[0] if module.branches == 1 else torch.stack(codes, dim=2)
        found["reconstruction"] = module.decode_latents(module.lookup(packed)).clamp(-1.0, 1.0)
        found |= seen
    quantizers = [quantize for quantize in module.quantizers if isinstance(quantize, MultiScaleQuantizer)]
    if quantizers:
        pairs = list(zip(quantizers, codes, strict=True))
        found["var_input"] = torch.cat([quantize.next_inputs(each) for quantize, each in pairs], dim=-1)
        first = packed[:, : quantizers[0].scales[0] ** 2]
        found["reconstruction_first_scale"] = module.decode_latents(module.lookup(first)).clamp(-1.0, 1.0)
        for scale, branch in _sums_wanted(case):
            quantize, each = pairs[branch]
            found[f"fhat_scale{scale}_branch{branch}"] = quantize.sums(each)[scale]
    return found


def _as_release(latents: Tensor, module: ImageFolder) -> Tensor:
    """`(B, P*L, C)` as a column `(B, C, P*L, 1)`, or as a square where there is one branch."""
    return as_grid(latents, module.grid) if module.branches == 1 else as_grid(latents, latents.shape[1], 1)


def _sums_wanted(case: ParityCase) -> list[tuple[int, int]]:
    matches = [re.fullmatch(r"fhat_scale(\d+)_branch(\d+)", name) for name in case.wanted]
    return [(int(match[1]), int(match[2])) for match in matches if match]


PARITY = Parity(build=build, outputs=outputs, optional=("semantic_model.",))
