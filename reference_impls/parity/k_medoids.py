"""K-medoids beside JoakimHaurum/TokenReduction."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._reducers import outputs as traced
from reference_impls.parity._reducers import reduced, stages_of
from reference_impls.reducers.k_medoids import METHOD, KMedoidsSettings
from tokenmark.contracts import Parity, ParityCase


def build(config: Mapping[str, Any], _variant: str) -> ReducedViT:
    """The reduced model that the release's configuration describes."""
    return reduced(METHOD, config, KMedoidsSettings(**stages_of(config), iterations=config.get("cluster_iters", 3)))


def outputs(module: ReducedViT, case: ParityCase) -> dict[str, Tensor]:
    """The tokens' ways, and the medoids themselves where they enter their block."""
    found = traced(module, case)
    for name in case.wanted:
        if name.startswith("centers"):
            block = int(name.removeprefix("centers"))
            patches, medoids = found[f"block{block - 1}"][:, 1:], found[f"entering{block}"][:, 1:]
            found |= {
                name: medoids,
                f"kept{block}": (medoids[:, :, None] == patches[:, None]).all(dim=3).int().argmax(2),
            }
    return found


PARITY = Parity(build=build, outputs=outputs)
