"""PatchMerger beside JoakimHaurum/TokenReduction."""

from collections.abc import Mapping
from typing import Any

from reference_impls.layers.stages import Stages
from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._reducers import reduced, stages_of
from reference_impls.parity._soft_clusters import outputs
from reference_impls.reducers.patchmerger import METHOD
from tokenmark.contracts import Parity


def build(config: Mapping[str, Any], _variant: str) -> ReducedViT:
    """The reduced model that the release's configuration describes."""
    return reduced(METHOD, config, Stages(**stages_of(config)))


PARITY = Parity(build=build, outputs=outputs)
