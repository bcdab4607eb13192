"""xAR beside OliverRensu/xAR."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.generators.xar import (
    TICKS,
    Xar,
    XarSettings,
    network_times,
    release_arguments,
    sampling_times,
)
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.xar_transformer import rotary_tables
from reference_impls.parity._mar import gaussian
from reference_impls.parity._recorded import Recorded
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

SETTINGS = XarSettings(num_steps=5, cfg=2.7)
"""Of the recorded sample."""


def build(config: Mapping[str, Any], _variant: str) -> Xar:
    """The generator that the release's configuration describes."""
    return Xar(**release_arguments(config))


def outputs(module: Xar, case: ParityCase) -> dict[str, Tensor]:
    """Velocities of one cell and of two, with a cache and without; the rotary tables; and a sample."""
    x, labels = case.inputs["x"], case.inputs["labels"]
    ticks = (case.inputs["t"] * TICKS).long()[:, None]
    alone, dropped = x[:, : module.cell], torch.full_like(labels, module.classes)
    dim = case.config["encoder_embed_dim"] // case.config["encoder_num_heads"]
    _, cosines, sines = rotary_tables(module.grid, dim, torch.float64, x.device)
    caches = module.caches()
    of_two = module.velocity(x, torch.cat([ticks * 0, ticks], dim=1), labels, 0, caches)
    times = network_times(sampling_times(SETTINGS.num_steps)[:-1], torch.float64)
    start, steps = (gaussian(case.inputs[f"noise_{name}_cfg"]) for name in ("start", "steps"))
    # Steps are counted through all cells.
    noise = Recorded({"start": start, "steps": steps.flatten(0, 1)})
    return {
        "velocity_first_cell": module.velocity(alone, ticks, labels),
        "velocity_unconditional": module.velocity(alone, ticks, dropped),
        "velocity_second_cell": of_two[:, module.cell :],
        "velocity_second_cell_cached": module.velocity(x[:, module.cell :], ticks, labels, 1, caches),
        "rope_cos": cosines,
        "rope_sin": sines,
        "sampled_latents_cfg": module.generate(labels, SETTINGS, noise, Watch()),
        "integer_times_cfg": torch.tensor(times),
    }


PARITY = Parity(build=build, outputs=outputs)
