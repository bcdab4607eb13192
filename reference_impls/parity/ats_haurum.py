"""ATS beside JoakimHaurum/TokenReduction."""

from collections.abc import Mapping
from typing import Any

from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._reducers import outputs, reduced, stages_of
from reference_impls.reducers.ats_haurum import METHOD, AtsHaurumSettings
from tokenmark.contracts import Parity


def build(config: Mapping[str, Any], _variant: str) -> ReducedViT:
    """The reduced model that the release's configuration describes; its lists count steps, one more than patches."""
    rates, patches = config["keep_rate"], (config["img_size"] // config["patch_size"]) ** 2
    stages = stages_of(config)
    if len(rates) > 1:
        stages["keep_rate"] = tuple((rate if rate < 1 else (rate - 0.5) / patches) for rate in rates)
    return reduced(METHOD, config, AtsHaurumSettings(**stages, trim=True))


PARITY = Parity(build=build, outputs=outputs)
