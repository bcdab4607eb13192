"""LaMamba-Diff beside yunxiangfu2001/LaMamba-Diff, whose kernel of the scan is a recurrence in the vector."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.generators.lamamba_diff import LaMambaDiff, release_arguments
from reference_impls.generators.lamamba_diff import build as built
from reference_impls.parity import _diffusion
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]

RUNS: Mapping[str, Mapping[str, Any]] = {"ddpm": {"cfg_scale": 4.0}}
"""Settings of the recorded runs, as the vector's notes tell them."""


def build(config: Mapping[str, Any], _variant: str) -> LaMambaDiff:
    """The module that the release's arguments describe."""
    return built(None, **release_arguments(config))


def outputs(module: LaMambaDiff, case: ParityCase) -> dict[str, Tensor]:
    """What the first blocks, the middle and the last stage give, the predictions, and the sampler's run."""
    first = module.layers[0].get_submodule("blocks")
    stages = {
        "patches": module.patch_embed,
        "ssm_of_first_block": first.get_submodule("0.op"),
        "after_first_block": first.get_submodule("0"),
        "after_second_block": first.get_submodule("1"),
        "mid": module.mid_layer,
        "after_last_up_layer": module.layers_up[-1],
    }
    return _diffusion.outputs(module, case, stages, RUNS)


PARITY = Parity(build=build, outputs=outputs)
