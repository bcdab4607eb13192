"""Sinkhorn beside JoakimHaurum/TokenReduction."""

from collections.abc import Mapping
from typing import Any

from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._reducers import reduced, stages_of
from reference_impls.parity._soft_clusters import outputs
from reference_impls.reducers.sinkhorn import METHOD, SinkhornSettings
from tokenmark.contracts import Parity


def build(config: Mapping[str, Any], _variant: str) -> ReducedViT:
    """The reduced model that the release's configuration describes."""
    iterations, eps = config.get("cluster_iters", 3), config.get("sinkhorn_eps", 1.0)
    return reduced(METHOD, config, SinkhornSettings(**stages_of(config), iterations=iterations, eps=eps))


PARITY = Parity(build=build, outputs=outputs)
