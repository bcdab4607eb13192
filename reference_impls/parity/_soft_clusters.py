"""What the vectors of learned soft clusters share."""

from typing import Any

from torch import Tensor

from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._reducers import outputs as traced
from reference_impls.parity._taps import tapped
from tokenmark.contracts import ParityCase

__all__ = ["outputs"]


def outputs(module: ReducedViT, case: ParityCase) -> dict[str, Tensor]:
    """The tokens' ways, and the weights of every stage as `soft_assignment{block}`."""
    layers: Any = module.reduction.cluster_layers
    blocks = case.config["reduction_loc"]
    with tapped({f"soft_assignment{block}": layer for block, layer in zip(blocks, layers, strict=True)}) as seen:
        found = traced(module, case)
    return found | {name: given[0] for name, given in seen.items()}
