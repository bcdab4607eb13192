"""STViT-R beside changsn/STViT-R."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.classifiers.stvit_r import METHOD, SemanticSwin
from reference_impls.parity._taps import tapped
from tokenmark.contracts import Parity, ParityCase


def build(config: Mapping[str, Any], _variant: str) -> SemanticSwin:
    """The model that the release's configuration describes."""
    model: SemanticSwin = METHOD.build(**config)
    return model


def outputs(module: SemanticSwin, case: ParityCase) -> dict[str, Tensor]:
    """Every block's tokens, counted through all stages, the pooled features and the logits."""
    blocks = [block for layer in module.layers for block in layer.blocks]  # type: ignore[union-attr]
    with tapped({f"block{index}": block for index, block in enumerate(blocks)}) as seen:
        features = module.features(case.inputs["image"])
    found = {name: x.flatten(1, 2) if x.ndim == 4 else x for name, x in seen.items()}
    found["tokens_per_block"] = torch.tensor([found[f"block{index}"].shape[1] for index in range(len(blocks))])
    return found | {"features": features, "logits": module.head(features)}


PARITY = Parity(build=build, outputs=outputs)
