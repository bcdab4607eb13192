"""What vectors of diffusion transformers record beside their blocks: predictions, and runs of the sampler."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.layers.class_generator import Watch
from reference_impls.layers.diffusion import guide, linear_betas, respaced_steps
from reference_impls.layers.diffusion_transformer import DiffusionTransformer
from reference_impls.layers.dit_blocks import grid_sincos, timestep_features
from reference_impls.layers.latent_diffusion import (
    TRAINING_STEPS,
    DiffusionSettings,
    ImplicitDiffusion,
    LatentDiffusion,
)
from reference_impls.parity._mar import gaussian
from reference_impls.parity._recorded import Recorded
from reference_impls.parity._taps import tapped
from tokenmark.contracts import ParityCase

__all__ = ["outputs", "with_exact_positions"]

RECORDED_SCALE = 4.0
"""Guidance of the output `prediction_guided`."""


def with_exact_positions(module: DiffusionTransformer) -> DiffusionTransformer:
    """The same module with positions in float64, as vectors have them; checkpoints round them to float32."""
    if module.pos_embed.device.type != "meta":
        table = grid_sincos(module.pos_embed.shape[2], module.grid, number_type=torch.float64)
        module.pos_embed = nn.Parameter(table[None], requires_grad=False)
    return module


def outputs(
    module: LatentDiffusion,
    case: ParityCase,
    stages: Mapping[str, nn.Module],
    settings: Mapping[str, Mapping[str, Any]],
) -> dict[str, Tensor]:
    """Predictions with what `stages` give on the way to the first, tables, and every run that has `settings`."""
    x, times, labels = (case.inputs[name] for name in ("x", "t", "labels"))
    with tapped(stages) as seen:
        told = module(x, times, labels)
    untold = module(x, times, torch.full_like(labels, module.classes))
    channels = module.guided_channels
    guided = guide(told, untold, RECORDED_SCALE, channels)
    # The release runs [x; x] through guidance: both halves have guided noise, and the rest is their own.
    other = torch.cat([guided[:, :channels], untold[:, channels:]], dim=1)
    found = dict(seen) | {
        "prediction": told,
        "prediction_unconditional": untold,
        "prediction_guided": torch.cat([guided, other]),
        "pos_embed": module.get_parameter("pos_embed"),
        "timestep_embedding": timestep_features(times.double(), 256, exact=True),
    }
    for name in case.inputs:
        run = name.removeprefix("noise_steps_")
        if run != name and run in settings:
            steps = len(case.inputs[name])
            found |= _run(module, case, run, DiffusionSettings(steps=steps, **settings[run]))
    return found


def _run(module: LatentDiffusion, case: ParityCase, run: str, settings: DiffusionSettings) -> dict[str, Tensor]:
    labels = case.inputs["labels"]
    start, steps = (gaussian(case.inputs[f"noise_{name}_{run}"]) for name in ("start", "steps"))
    # The release draws the noise of both guided halves, and keeps the first.
    noise = Recorded({"start": start[None], "step": steps[:, : len(labels)]})
    entering: list[Tensor] = []
    sampled = module.generate(labels, settings, noise, Watch(), entering.append)
    taken = respaced_steps(TRAINING_STEPS, settings.spacing)
    diffusion = ImplicitDiffusion(linear_betas(TRAINING_STEPS), taken)
    last = torch.full_like(labels, taken[-1])
    output = module.guided(entering[0], last, labels, settings.cfg_scale)
    return {
        f"timesteps_{run}": torch.tensor(taken),
        f"first_pred_xstart_{run}": diffusion.clean(output, entering[0], len(taken) - 1),
        f"latents_after_steps_{run}": torch.stack(entering[1:]),
        f"sampled_latents_{run}": sampled,
    }
