"""ToMe at 3-6-9 beside JoakimHaurum/TokenReduction, which clips its budgets silently."""

from collections.abc import Mapping
from typing import Any

from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._reducers import outputs, reduced, stages_of
from reference_impls.reducers.tome_3stage import METHOD, Tome3StageSettings
from tokenmark.contracts import Parity


def build(config: Mapping[str, Any], _variant: str) -> ReducedViT:
    """The reduced model that the release's configuration describes."""
    return reduced(METHOD, config, Tome3StageSettings(**stages_of(config), allow_clip=True))


PARITY = Parity(build=build, outputs=outputs)
