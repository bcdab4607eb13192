"""Token Cropr beside benbergner/cropr, its classification."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._reducers import inverse_map, leaving, step_map, vit
from reference_impls.parity._reducers import outputs as traced
from reference_impls.reducers.cropr import METHOD, CroprSettings
from tokenmark.contracts import Parity, ParityCase

LAYERS = ("pre_attn_norm", "q_proj", "k_proj", "v_proj", "mlp", "mlp_ratio")


def build(config: Mapping[str, Any], _variant: str) -> ReducedViT:
    """The reduced model that the release's configuration describes; its average takes in the class token."""
    model: Any = vit(config)
    model.pool_include_prefix = True
    asked = config["cropr"]
    layers = {name: asked[name] for name in LAYERS}
    settings = CroprSettings(r=asked["pruning_rate"], llf=asked["llf"], heads=asked["num_heads"], **layers)
    return METHOD.build(model, settings)  # type: ignore[return-value]


def outputs(module: ReducedViT, case: ParityCase) -> dict[str, Tensor]:
    """The tokens' ways, what each router saw and said, and, of a training pass, the routers' own logits."""
    reduction: Any = module.reduction
    with leaving(reduction) as left:
        found = traced(module, case)
    counts = [left[f"block{block}"].shape[1] for block in range(len(module.schedule))]
    for stage, kept in enumerate(reduction.kept):
        found[f"scores{stage}"] = reduction.routers[stage].scores(left[f"block{stage}"])[:, 1:]
        found[f"kept_stage{stage}"] = inverse_map(step_map(found, stage, counts[stage]), 1 + kept)
    module.train()
    module(case.inputs["image"])
    module.eval()
    found |= {f"aux_logits{stage}": logits for stage, logits in enumerate(reduction.auxiliary)}
    return found | left | {"tokens_per_block": torch.tensor(counts)}


PARITY = Parity(build=build, outputs=outputs)
