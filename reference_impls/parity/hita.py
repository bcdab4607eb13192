"""Hita beside CVMI-Lab/Hita."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.layers.grid_vq import as_grid
from reference_impls.parity._taps import tapped
from reference_impls.tokenizers.hita import Hita, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> Hita:
    """The module that the release's configuration describes."""
    return Hita(**release_arguments(config))


def outputs(module: Hita, case: ParityCase) -> dict[str, Tensor]:
    """What the foundation model sees and gives, both kinds of codes, and the image."""
    signed = case.inputs["images"]
    backbone = module.encode_transformer.backbone
    with tapped({"conv_features": module.encoder}) as seen:
        slots, grid = module.encode_latents(signed)
    slot_codes, codes = module.quantize_latents(slots, grid)
    mixed = module.mixed_grid(slot_codes.quantized, codes.quantized)
    found = seen | {
        "vfm_input": backbone.shown(signed),
        "vfm_latent": backbone(signed)[0][:, 1:],
        "encoded": grid,
        "encoded_slots": slots,
        "tokens": codes.codes,
        "tokens_slots": slot_codes.codes,
        "quantized": as_grid(codes.quantized, module.grid),
        "quantized_slots": slot_codes.quantized,
        "decoder_input": mixed,
        "reconstruction": module.decoder(mixed),
    }
    if module.decode_transformer.reconstructs_foundation:
        found["vfm_reconstruction"] = module.foundation_features(slot_codes.quantized)
    return found


PARITY = Parity(build=build, outputs=outputs)
