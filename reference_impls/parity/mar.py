"""MAR beside LTH14/mar."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.generators import mar
from reference_impls.generators.mar import Mar, SamplerSettings, patchify, unpatchify
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.mar_sampling import cosine_diffusion, visible_of
from reference_impls.parity._mar import head_outputs, recorded
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

NO_ARGUMENTS = frozenset({"mlp_ratio", "num_sampling_steps", "norm_eps", "sampling"})
"""What a configuration says and `build` does not take: constants, and what is the sampler's."""
SHOWN: Mapping[str, int] = {"small": 6, "small-patch2": 5}
"""How many tokens are seen where the network is run once, by variant."""
HEAD_TOKENS, HEAD_SCALE = 4, 2.9
"""On how many tokens of an image the head is run once, and its guidance there."""
RUNS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "small": {
        "linear": {"steps": 5, "cfg_scale": 2.9},
        "constant": {"steps": 3, "cfg_scale": 3.0, "cfg_schedule": "constant", "temperature": 0.97},
        "no_guidance": {"steps": 4, "cfg_scale": 1.0, "temperature": 0.95},
    },
    "small-patch2": {
        "linear": {"steps": 4, "cfg_scale": 2.0},
        "unconditional": {"steps": 2, "cfg_scale": 1.0},
    },
}
"""Settings of the recorded samples, by variant; those called unconditional have no class."""


def build(config: Mapping[str, Any], _variant: str) -> Mar:
    """The module that the release's configuration describes."""
    return mar.build(None, **{name: value for name, value in config.items() if name not in NO_ARGUMENTS})


def outputs(module: Mar, case: ParityCase) -> dict[str, Tensor]:
    """One pass of the backbone and of the head, and every recorded sample."""
    found, features = _backbone(module, case)
    told, blind = (part[:, :HEAD_TOKENS].flatten(0, 1) for part in features)
    found |= head_outputs(module.head, case, told, blind, HEAD_SCALE)
    found["head_timesteps"] = torch.tensor(cosine_diffusion(int(case.config["num_sampling_steps"])).steps)
    for run, settings in RUNS[case.variant].items():
        found |= _sample(module, case, run, settings)
    return found


def _backbone(module: Mar, case: ParityCase) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
    tokens = patchify(case.inputs["latents"], module.patch_size)
    visible = visible_of(case.inputs["orders"], module.length - SHOWN[case.variant])
    conditions = module.conditions(case.inputs["labels"])
    encoded = module.encode_visible(tokens, visible, conditions)
    features = module.decode_all(encoded, visible)
    dropped = module.features(tokens, visible, module.fake_latent.expand_as(conditions))
    found = {"patchified": tokens, "encoded": encoded, "decoded": features, "decoded_unconditional": dropped}
    return found, (features, dropped)


def _sample(module: Mar, case: ParityCase, run: str, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    conditions, seen, scales = module.conditions(case.inputs["labels"]), [], []
    if run == "unconditional":
        conditions = module.fake_latent.expand_as(conditions)

    def entering(visible: Tensor, scale: float) -> None:
        masks = torch.ones(len(visible), module.length, dtype=torch.int64)
        seen.append(masks.scatter(1, visible, 0))
        scales.append(scale)

    chosen = SamplerSettings(**settings, diffusion_steps=int(case.config["num_sampling_steps"]))
    tokens = module.write(conditions, chosen, recorded(case, run), Watch(), entering)
    return {
        f"masks_after_iterations_{run}": torch.stack(seen[1:]),
        f"guidance_of_iterations_{run}": torch.tensor(scales, dtype=torch.float64),
        f"sampled_latents_{run}": unpatchify(tokens, module.patch_size, module.grid),
    }


PARITY = Parity(build=build, outputs=outputs)
