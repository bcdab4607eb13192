"""DPC-KNN beside JoakimHaurum/TokenReduction."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._reducers import outputs as traced
from reference_impls.parity._reducers import reduced, stages_of
from reference_impls.reducers.dpcknn import METHOD, DpcKnnSettings, density_peaks
from tokenmark.contracts import Parity, ParityCase


def build(config: Mapping[str, Any], _variant: str) -> ReducedViT:
    """The reduced model that the release's configuration describes."""
    neighbours, equal_weight = config.get("k_neighbors", 5), config.get("equal_weight", False)
    settings = DpcKnnSettings(**stages_of(config), neighbours=neighbours, equal_weight=equal_weight)
    return reduced(METHOD, config, settings)


def outputs(module: ReducedViT, case: ParityCase) -> dict[str, Tensor]:
    """The tokens' ways under the recorded noise, and the peaks."""
    reduction: Any = module.reduction
    blocks, neighbours = case.config["reduction_loc"], case.config["k_neighbors"]
    reduction.noise = tuple(case.inputs[f"noise{stage}"] for stage in range(len(blocks)))
    found = traced(module, case)
    for block, noise in zip(blocks, reduction.noise, strict=True):
        patches, count = found[f"block{block - 1}"][:, 1:], found[f"block{block}"].shape[1] - 1
        peaks, _ = density_peaks(patches, count, neighbours, noise)
        found |= {
            f"kept{block}": peaks,
            f"centers{block}": patches.gather(1, peaks[..., None].expand(-1, -1, patches.shape[2])),
        }
    return found


PARITY = Parity(build=build, outputs=outputs)
