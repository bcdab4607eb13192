"""Hi-MAR beside HiDream-ai/himar."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.generators import himar
from reference_impls.generators.himar import Himar, SamplerSettings
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.diffusion import guide
from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.layers.mar_sampling import visible_of
from reference_impls.parity._mar import as_uniform, gaussian
from reference_impls.parity._recorded import Recorded
from reference_impls.parity._taps import tapped
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

NO_ARGUMENTS = frozenset(
    {
        *("patch_size", "mlp_ratio", "num_sampling_steps", "sampling", "cond_dim", "two_diffloss"),
        *("global_dm", "ratio", "cos", "global_sampling_steps"),
    }
)
"""What a configuration says and `build` does not take: the same in all releases, or the sampler's."""
MASKED_SMALL, MASKED_LARGE = 10, 156
"""How many tokens are masked where the network is run once."""
GRID_SCALE = 2.5
"""Guidance where the head for the grid is run once."""
RUN = "cfg"
STEPS, CFG_SCALE, SMALL_CFG_SCALE = 3, 2.5, 2.7
"""Settings of the recorded sample."""


def build(config: Mapping[str, Any], _variant: str) -> Himar:
    """The module that the release's configuration describes."""
    return himar.build(None, **{name: value for name, value in config.items() if name not in NO_ARGUMENTS})


def outputs(module: Himar, case: ParityCase) -> dict[str, Tensor]:
    """Both stages once, the head for the grid once, and the recorded sample."""
    found, large = _stages(module, case)
    return found | _grid(module, case, *large) | _sample(module, case)


def _stages(module: Himar, case: ParityCase) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
    orders = case.inputs["orders"]
    small, large = (as_rows(case.inputs[name]) for name in ("small_latents", "latents"))
    conditions = module.conditions(case.inputs["labels"])
    with tapped({"encoded": module.encoder_norm}) as seen:
        first = module.small_features(small, visible_of(orders[:, : module.small], MASKED_SMALL), conditions)
        found = {"encoded_stage1": seen["encoded"], "decoded_stage1": first}
        visible = visible_of(orders[:, module.small :] - module.small, MASKED_LARGE)
        states = module.from_states(first)
        told = module.large_features(states, large, visible, conditions)
        found |= {"encoded_stage2": seen["encoded"], "decoded_stage2": told}
        untold = module.large_features(states, large, visible, module.fake_latent.expand_as(conditions))
        module.large_features(module.cond_proj(small), large, visible, conditions)
        found |= {"decoded_stage2_unconditional": untold, "encoded_stage2_from_small_tokens": seen["encoded"]}
    return found, (told[:, module.small :], untold[:, module.small :])


def _grid(module: Himar, case: ParityCase, told: Tensor, untold: Tensor) -> dict[str, Tensor]:
    x, times, head = case.inputs["grid_x"], case.inputs["grid_t"], module.grid_head
    conditional, unconditional = (head.denoise(x, times, head.embed(features)) for features in (told, untold))
    guided = guide(conditional, unconditional, GRID_SCALE, head.channels)
    return {"grid_prediction": conditional, "grid_prediction_guided": torch.cat([guided, guided])}


def _sample(module: Himar, case: ParityCase) -> dict[str, Tensor]:
    left: dict[str, list[int]] = {"small": [], "large": []}
    settings = SamplerSettings(
        steps=STEPS,
        cfg_scale=CFG_SCALE,
        small_cfg_scale=SMALL_CFG_SCALE,
        diffusion_steps=int(case.config["num_sampling_steps"]),
        grid_steps=case.config["global_sampling_steps"],
    )
    small, large = module.generate(
        case.inputs["labels"],
        settings,
        _noise(case, module.small),
        Watch(),
        lambda stage, count: left[stage].append(count),
    )
    # The release records one masked token at the end, though it has written that too.
    after = {stage: torch.tensor([*counts[1:], 1]) for stage, counts in left.items()}
    return {
        f"sampled_small_latents_{RUN}": as_grid(small, case.config["cond_scale"]),
        f"sampled_latents_{RUN}": as_grid(large, module.grid_head.grid),
        f"masked_after_small_iterations_{RUN}": after["small"],
        f"masked_after_big_iterations_{RUN}": after["large"],
    }


def _noise(case: ParityCase, small: int) -> Recorded:
    """That of the recorded sample; of large tokens it is kept as grids, for every iteration."""
    orders = case.inputs["orders"]
    start, steps, large_start, large_steps = (
        gaussian(case.inputs[f"{name}_{RUN}"]) for name in ("small_start", "small_steps", "big_start", "big_steps")
    )
    return Recorded(
        {
            "small_order": as_uniform(orders[:, :small]).unsqueeze(0),
            "order": as_uniform(orders[:, small:] - small).unsqueeze(0),
            "small_start": start.unsqueeze(0),
            "small_steps": steps.transpose(0, 1).unsqueeze(0),
            # (iterations, B, C, h, w), and (iterations, steps, B, C, h, w)
            "start": large_start.flatten(3).transpose(2, 3),
            "steps": large_steps.flatten(4).transpose(3, 4).transpose(1, 2),
        }
    )


PARITY = Parity(build=build, outputs=outputs)
