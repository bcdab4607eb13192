"""STViT (super tokens) beside hhb072/STViT."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from reference_impls.classifiers.stvit import METHOD, SuperTokenViT
from reference_impls.parity._taps import tapped
from tokenmark.contracts import Parity, ParityCase


def build(config: Mapping[str, Any], _variant: str) -> SuperTokenViT:
    """The model that the release's configuration describes: by its sizes, or by the release's own name."""
    if "name" in config:
        config = METHOD.variants[config["name"].replace("_", "-")].config
    model: SuperTokenViT = METHOD.build(**config)
    return model


def outputs(module: SuperTokenViT, case: ParityCase) -> dict[str, Tensor]:
    """The stem's map, every block's and its attention's counted through all stages, the pooled features, the logits."""
    blocks = [block for layer in module.layers for block in layer.blocks]  # type: ignore[union-attr]
    wanted = {"stem": module.patch_embed} | {f"block{index}": block for index, block in enumerate(blocks)}
    wanted |= {f"attn{index}": block.attn for index, block in enumerate(blocks)}
    with tapped(wanted) as seen:
        features = module.features(case.inputs["image"])
    return seen | {"features": features, "logits": module.head(features)}


PARITY = Parity(build=build, outputs=outputs)
