"""Halton-MaskGIT beside valeoai/Halton-MaskGIT: logits, the order of cells, and every step of both samplers."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.generators.halton_maskgit import HaltonMaskGit, release_arguments
from reference_impls.generators.halton_maskgit import build as built
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.halton_sampling import HaltonSettings, decided_after, halton_order
from reference_impls.parity._recorded import Recorded
from reference_impls.parity._taps import tapped
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

BASE: Mapping[str, Any] = {"sm_temp_min": 1.0, "sm_temp_max": 1.2, "temp_warmup": 1}
CONFIDENCE = {"sampler": "confidence", "w": 3.0, "r_temp": 4.5}
"""The settings of the recorded runs, by vector and name of run."""
RUNS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "small": {
        "halton": {**BASE, "w": 2.0},
        "halton_topk": {**BASE, "w": 0.5, "temp_pow": 2.0, "randomize": False, "top_k": 7},
        "confidence": CONFIDENCE,
    },
}
"""Of vectors that are not named here, "halton" has a guidance of 1."""


def build(config: Mapping[str, Any], _variant: str) -> HaltonMaskGit:
    """The module that the release's configuration describes."""
    return built(None, **release_arguments(config))


def outputs(module: HaltonMaskGit, case: ParityCase) -> dict[str, Tensor]:
    """Logits with and without the class, blocks, the order, and every run."""
    codes, labels = case.inputs["tokens"].flatten(1), case.inputs["labels"]
    layers = module.transformer.layers
    with tapped({f"after_layer_{index}": layer for index, layer in enumerate(layers)}) as seen:
        found = {"logits": module(codes, labels)}
    found |= dict(seen)
    found["logits_unconditional"] = module(codes, torch.full_like(labels, module.classes))
    found["halton_order"] = halton_order(module.input_size)
    for run, chosen in RUNS.get(case.variant, {"halton": {**BASE, "w": 1.0}}).items():
        found |= _run(module, case, run, chosen)
    return found


def _run(module: HaltonMaskGit, case: ParityCase, run: str, chosen: Mapping[str, Any]) -> dict[str, Tensor]:
    labels, side = case.inputs["labels"], module.input_size
    settings = HaltonSettings(steps=len(case.inputs[f"noise_{run}"]), **chosen)
    drawn, masked = [], []

    def each(step_drawn: Tensor, codes: Tensor) -> None:
        drawn.append(step_drawn.unflatten(1, (side, side)))
        masked.append((codes == module.codebook_size).sum(1))

    rows = {
        "tokens": case.inputs[f"noise_{run}"].unflatten(1, (len(labels), side**2)),
        # Image b begins at a roll of 3 b + 1; the half keeps rounding away from the next one.
        "start": ((3.0 * torch.arange(len(labels), dtype=torch.float64) + 1.5) / side**2).unsqueeze(0),
    }
    if settings.sampler == "confidence":
        rows["confidence"] = case.inputs[f"noise_confidence_{run}"]
    codes = module.generate(labels, settings, Recorded(rows), Watch(), each)
    counts = torch.tensor([0, *decided_after(settings, side**2)])
    return {
        f"sampled_tokens_{run}": codes.unflatten(1, (side, side)),
        f"drawn_ids_{run}": torch.stack(drawn),
        f"decided_per_step_{run}": counts.diff(),
        f"masked_after_steps_{run}": torch.stack(masked),
    }


PARITY = Parity(build=build, outputs=outputs)
