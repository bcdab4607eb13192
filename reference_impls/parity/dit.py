"""DiT beside facebookresearch/DiT."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.generators.dit import DiT, release_arguments
from reference_impls.generators.dit import build as built
from reference_impls.parity import _diffusion
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

RUNS: Mapping[str, Mapping[str, Any]] = {
    "ddpm": {"cfg_scale": 4.0},
    "ddim": {"cfg_scale": 1.5, "sampler": "ddim"},
    "ddim_eta": {"cfg_scale": 1.0, "sampler": "ddim", "eta": 0.7},
}
"""Settings of the recorded runs, as the vector's notes tell them."""


def build(config: Mapping[str, Any], _variant: str) -> DiT:
    """The module that the release's arguments describe."""
    module = built(None, **release_arguments(config))
    _diffusion.with_exact_positions(module)
    return module


def outputs(module: DiT, case: ParityCase) -> dict[str, Tensor]:
    """The blocks, the predictions, and every step of the samplers."""
    stages = {"patches": module.x_embedder, "t_emb": module.t_embedder}
    stages |= {f"after_block_{index}": block for index, block in enumerate(module.blocks)}
    return _diffusion.outputs(module, case, stages, RUNS)


PARITY = Parity(build=build, outputs=outputs)
