"""EViT beside JoakimHaurum/TokenReduction."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.layers.stages import Stages
from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._reducers import outputs as traced
from reference_impls.parity._reducers import reduced, stages_of
from reference_impls.reducers.evit_haurum import METHOD
from tokenmark.contracts import Parity, ParityCase


def build(config: Mapping[str, Any], _variant: str) -> ReducedViT:
    """The reduced model that the release's configuration describes."""
    return reduced(METHOD, config, Stages(**stages_of(config)))


def outputs(module: ReducedViT, case: ParityCase) -> dict[str, Tensor]:
    """The tokens' ways; `kept{i}` ends with -1 for the fused token, and `fused{i}` are the patches in it."""
    found = traced(module, case)
    for block in case.config["reduction_loc"]:
        goes_to = found[f"assignment{block}"]
        fused = goes_to == goes_to.amax(dim=1, keepdim=True)
        found[f"kept{block}"] = torch.nn.functional.pad(found[f"kept{block}"][:, :-1], (0, 1), value=-1)
        found[f"fused{block}"] = fused.nonzero()[:, 1].unflatten(0, (goes_to.shape[0], -1))
    return found


PARITY = Parity(build=build, outputs=outputs)
