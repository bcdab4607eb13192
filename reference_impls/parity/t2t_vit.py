"""T2T-ViT beside yitu-opensource/T2T-ViT."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.classifiers.t2t_vit import METHOD, T2TVit
from reference_impls.parity._taps import tapped
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> T2TVit:
    """The module that the release's configuration describes, by its sizes or by the release's name (`t2t_vit_14`)."""
    sizes = dict(config)
    named = METHOD.variants[sizes.pop("name").replace("_", "-")].config if "name" in sizes else {}
    return T2TVit(**{**named, **sizes})


def outputs(module: T2TVit, case: ParityCase) -> dict[str, Tensor]:
    """Tokens after each layer of the tokens-to-token module, after it and after every block; features and logits."""
    depth = len(module.blocks)
    parts = {
        "t2t_attention1": module.tokens_to_token.attention1,
        "t2t_attention2": module.tokens_to_token.attention2,
        "tokens": module.tokens_to_token,
        **{f"block{i}": block for i, block in enumerate(module.blocks)},
        "normed": module.norm,
        "logits": module,
    }
    with tapped(parts) as seen:
        module(case.inputs["image"])
    counts = torch.tensor([seen[f"block{i}"].shape[1] for i in range(depth)])
    return seen | {"features": seen["normed"][:, 0], "tokens_per_block": counts}


PARITY = Parity(build=build, outputs=outputs)
