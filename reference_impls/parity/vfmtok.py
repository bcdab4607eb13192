"""VFMTok beside CVMI-Lab/VFMTok."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.tokenizers.vfmtok import VfmTok, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> VfmTok:
    """The module that the release's configuration describes."""
    return VfmTok(**release_arguments(config))


def outputs(module: VfmTok, case: ParityCase) -> dict[str, Tensor]:
    """What the foundation model sees and gives, the slots, the codes, and the image."""
    signed = case.inputs["images"]
    encoder = module.encode_transformer
    features = encoder.backbone(signed, encoder.levels)
    slots = encoder.gathered(features)
    quantized = module.quantize_slots(slots)
    mixed = module.mixed_grid(quantized.quantized)
    levels = {int(match[1]) for name in case.wanted if (match := re.fullmatch(r"vfm_level(\d+)", name))}
    return {
        "vfm_input": encoder.backbone.shown(signed),
        **{f"vfm_level{level}": features[level][:, 1:] for level in levels},
        "vfm_last": features[-1][:, 1:],
        "slots": slots,
        "encoded": module.pre_slots_quant(slots),
        "tokens": quantized.codes,
        "quantized": quantized.quantized,
        "decoder_input": mixed,
        "reconstruction": module.decoder(mixed),
    }


PARITY = Parity(build=build, outputs=outputs)
