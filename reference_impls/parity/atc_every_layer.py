"""ATC in every block beside JoakimHaurum/ATC: its code for models that were not trained for it."""

from collections.abc import Mapping
from typing import Any

from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._reducers import reduced
from reference_impls.parity.atc import outputs
from reference_impls.parity.tome import settings_of
from reference_impls.reducers.atc_every_layer import METHOD, AtcEveryLayerSettings
from tokenmark.contracts import Parity


def build(config: Mapping[str, Any], _variant: str) -> ReducedViT:
    """The reduced model that the release's configuration describes."""
    asked = settings_of(config)
    settings = AtcEveryLayerSettings(
        r=asked.r,
        inflection=asked.inflection,
        per_block=asked.per_block,
        proportional=asked.proportional,
        linkage=config["linkage"],
    )
    return reduced(METHOD, config, settings)


PARITY = Parity(build=build, outputs=outputs)
