"""ToMe on MAE's classifiers beside facebookresearch/ToMe, whose patch of them has no proportional attention."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from reference_impls.parity._reducers import mae, reduced
from reference_impls.parity.tome import outputs, settings_of
from reference_impls.reducers.tome import METHOD
from tokenmark.contracts import Parity


def build(config: Mapping[str, Any], _variant: str) -> nn.Module:
    """The reduced model that the release's configuration describes."""
    return reduced(METHOD, config, settings_of(config), mae(config))


PARITY = Parity(build=build, outputs=outputs, layout=METHOD.layout)
