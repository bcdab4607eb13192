"""FlexDiT beside changsn/SparseDiT."""

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from reference_impls.generators.sparsedit import SparseDiT, release_arguments
from reference_impls.generators.sparsedit import build as built
from reference_impls.layers.dumbbell import Dumbbell
from reference_impls.parity import _diffusion
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

RUNS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "small": {"ddpm": {"cfg_scale": 4.0}, "ddim": {"cfg_scale": 1.5, "sampler": "ddim"}},
    "small-2222-relat": {"ddpm": {"cfg_scale": 2.0}},
}
"""Settings of the recorded runs by variant, as the vectors' notes tell them."""


def build(config: Mapping[str, Any], _variant: str) -> SparseDiT:
    """The module that the release's arguments describe."""
    module = built(None, **release_arguments(config))
    _diffusion.with_exact_positions(module)
    return module


def outputs(module: SparseDiT, case: ParityCase) -> dict[str, Tensor]:
    """The pieces of the first dumbbell, the predictions, and every step of the samplers."""
    dumbbell = cast("Dumbbell", module.dumbbell_blocks[0])
    stages: dict[str, nn.Module] = {
        "patches": module.x_embedder,
        "after_pooling_block": module.poolingformer_blocks[-1],
        "after_merge": dumbbell.token_merge_blocks[-1],
        "after_semantic": dumbbell.semantic_blocks[-1],
        "after_recovery": dumbbell.token_recover_blocks[-1],
        "after_dumbbell": dumbbell,
    }
    found = _diffusion.outputs(module, case, stages, RUNS.get(case.variant, {}))
    return found | {"downsampled": dumbbell.pooled(found["after_pooling_block"])}


PARITY = Parity(build=build, outputs=outputs)
