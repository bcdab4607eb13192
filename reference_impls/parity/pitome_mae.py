"""PiToMe on MAE's classifiers beside hchautran/PiToMe, which protects in the first half of their blocks."""

from collections.abc import Mapping
from typing import Any

from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._reducers import mae, reduced
from reference_impls.parity.pitome import outputs
from reference_impls.reducers.pitome import METHOD, PitomeSettings
from tokenmark.contracts import Parity


def build(config: Mapping[str, Any], _variant: str) -> ReducedViT:
    """The reduced model that the release's configuration describes."""
    model: Any = mae(config)
    # The release divides the sum over patches by the image's channels, and the norm after it hides that but for eps.
    if model.global_pool == "avg":
        model.fc_norm.eps *= (model.patch_embed.proj.in_channels / model.patch_embed.num_patches) ** 2
    return reduced(METHOD, config, PitomeSettings(ratio=config.get("ratio", 0.95), protecting="early"), model)


PARITY = Parity(build=build, outputs=outputs, layout=METHOD.layout)
