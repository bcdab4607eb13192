"""DiffRate beside OpenGVLab/DiffRate: given schedules on MAE's classifiers."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from reference_impls.parity._reducers import mae
from reference_impls.parity.diffrate import OPTIONAL, built, outputs
from reference_impls.reducers.diffrate import METHOD
from tokenmark.contracts import Parity


def build(config: Mapping[str, Any], _variant: str) -> nn.Module:
    """The reduced model that the release's configuration describes."""
    return built(config, mae(config))


PARITY = Parity(build=build, outputs=outputs, optional=OPTIONAL, layout=METHOD.layout)
