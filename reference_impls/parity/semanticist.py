"""Semanticist beside visual-gen/semanticist."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.layers.tokenizer import to_signed
from reference_impls.tokenizers.semanticist import Semanticist, release_arguments
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

PARTS = {"full": 1, "half": 2, "third": 3, "quarter": 4}
"""Which share of the slots the vectors' names mean."""


def build(config: Mapping[str, Any], _variant: str) -> Semanticist:
    """The module that the release's configuration describes."""
    return Semanticist(**release_arguments(config))


def outputs(module: Semanticist, case: ParityCase) -> dict[str, Tensor]:
    """The slots, one pass of the decoder, and what every recorded sampling gives."""
    images = case.inputs["images"]
    vae_latents = module.vae.posterior(to_signed(images)).mean * module.vae_scale
    features = module.encoder(images)
    plain = module.encoder2slot(features)
    slots = module.normalised(plain)
    times = torch.tensor([137 + 400 * (index % 3) for index in range(len(images))])
    mask = _keep(slots, PARTS["third"])
    found = {
        "vae_latents": vae_latents,
        "encoder_features": features,
        "slots_unnormalised": plain,
        "encoded": slots,
        "slot_mask": mask,
        "vae_roundtrip": module.decode_vae(vae_latents),
    }
    for name, keep in (("dit_output", _keep(slots, 1)), ("dit_output_masked", mask)):
        found[name] = module.dit(vae_latents, times, module.dit.told(slots, keep))
    for tail in {match[1] for name in case.wanted if (match := re.fullmatch(r"(?:latents|reconstruction)_(.+)", name))}:
        part, _, guidance = tail.partition("_cfg")
        keep = _keep(slots, PARTS[part])
        noises = case.inputs["noise_steps"].unbind(0)
        latents = module.sample(slots, keep, case.inputs["noise_init"], noises, float(guidance or 1.0))
        found |= {f"latents_{tail}": latents, f"reconstruction_{tail}": module.decode_vae(latents)}
    return found


def _keep(slots: Tensor, part: int) -> Tensor:
    """Which of the slots are kept, `(B, N)`: the first `1 / part` of them."""
    count = slots.shape[1]
    return (torch.arange(count) < count // part).expand(len(slots), -1)


PARITY = Parity(build=build, outputs=outputs)
