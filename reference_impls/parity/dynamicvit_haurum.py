"""DynamicViT beside JoakimHaurum/TokenReduction."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.layers.stages import Stages
from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._reducers import outputs as traced
from reference_impls.parity._reducers import reduced, stages_of
from reference_impls.parity._taps import tapped
from reference_impls.reducers.dynamicvit_haurum import METHOD
from tokenmark.contracts import Parity, ParityCase


def build(config: Mapping[str, Any], _variant: str) -> ReducedViT:
    """The reduced model that the release's configuration describes."""
    return reduced(METHOD, config, Stages(**stages_of(config)))


def outputs(module: ReducedViT, case: ParityCase) -> dict[str, Tensor]:
    """The tokens' ways, and what every predictor says."""
    predictors: Any = module.reduction.score_predictor
    with tapped({f"scores{stage}": predictor for stage, predictor in enumerate(predictors)}) as seen:
        found = traced(module, case)
    return found | seen


PARITY = Parity(build=build, outputs=outputs)
