"""One-D-Piece beside turingmotors/One-D-Piece."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.parity._taps import tapped
from reference_impls.parity.titok import as_release, stages
from reference_impls.tokenizers.one_d_piece import OneDPiece
from reference_impls.tokenizers.titok import release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> OneDPiece:
    """The module that the release's configuration describes."""
    return OneDPiece(**release_arguments(config))


def outputs(module: OneDPiece, case: ParityCase) -> dict[str, Tensor]:
    """The encoder, the codes, and what every recorded length decodes to."""
    with tapped(stages(module)) as seen:
        quantized = module.quantize_images(case.inputs["image"])
    latents, codes = quantized.quantized, quantized.codes
    found = seen | {"tokens": codes[:, None], "quantized": as_release(latents)}
    found["reconstruction"] = module.decode_latents(latents)
    assert module.quantize is not None  # noqa: S101  every release of it has a codebook
    for count in {int(match[1]) for name in case.wanted if (match := re.search(r"_(\d+)$", name))}:
        found[f"decoder_output_{count}"] = module.decode_logits(latents[:, :count])
        found[f"reconstruction_{count}"] = module.decode_latents(latents[:, :count])
        found[f"decoded_tokens_{count}"] = module.decode_latents(module.quantize.lookup(codes)[:, :count])
        found[f"decoded_first_tokens_{count}"] = module.decode_latents(module.quantize.lookup(codes[:, :count]))
    return found


PARITY = Parity(build=build, outputs=outputs)
