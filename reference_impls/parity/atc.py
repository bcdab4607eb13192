"""ATC beside JoakimHaurum/ATC: the code that it fine-tunes models with."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._reducers import outputs as traced
from reference_impls.parity._reducers import reduced, stages_of, step_map, vit
from reference_impls.reducers.atc import METHOD, AtcSettings
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY", "outputs"]


def build(config: Mapping[str, Any], _variant: str) -> ReducedViT:
    """The reduced model that the release's configuration describes."""
    model = vit({**config, "name": config.get("name", "").replace("atc_", "deit_")})
    found = {"linkage": config.get("linkage", "average"), "proportional": config.get("proportional_attn", True)}
    if "reduction_ratio" not in config:
        return reduced(METHOD, config, AtcSettings(**found), model)
    return reduced(METHOD, config, AtcSettings(**stages_of(config), **found), model)


def outputs(module: ReducedViT, case: ParityCase) -> dict[str, Tensor]:
    """The tokens' ways, and the same with tokens in the order of the first original one that each holds.

    After block i `block{i}_canonical` of all images; of image 0 `assignment{i}`, each entering token's place after it,
    and `partition{i}`, for each original token the first one that shares its cluster.
    """
    found = traced(module, case)
    count = module.backbone.tokens
    for block in range(module.backbone.depth):
        x, source = found[f"block{block}"], found[f"source{block}"]
        everyone = torch.arange(source.shape[1]).expand_as(source)
        first = torch.full(x.shape[:2], source.shape[1]).scatter_reduce(1, source, everyone, "amin")
        order = first.argsort(dim=1)
        found[f"block{block}_canonical"] = x.gather(1, order[..., None].expand_as(x))
        found[f"partition{block}"] = first.gather(1, source)[0]
        found[f"assignment{block}"] = step_map(found, block, count)[0]
        count = x.shape[1]
    return found


PARITY = Parity(build=build, outputs=outputs)
