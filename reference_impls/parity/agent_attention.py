"""Agent attention beside LeapLabTHU/Agent-Attention."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.classifiers.agent_attention import AgentDeit
from reference_impls.parity._taps import tapped
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> AgentDeit:
    """The module that the release's configuration describes."""
    return AgentDeit(**config)


def outputs(module: AgentDeit, case: ParityCase) -> dict[str, Tensor]:
    """Every block's attention and tokens, the features and the logits."""
    blocks: list[Any] = list(module.blocks)
    parts = {
        **{f"attn{i}": block.attn for i, block in enumerate(blocks)},
        **{f"block{i}": block for i, block in enumerate(blocks)},
        "normed": module.norm,
        "logits": module,
    }
    with tapped(parts) as seen:
        module(case.inputs["image"])
    counts = torch.tensor([seen[f"block{i}"].shape[1] for i in range(len(blocks))])
    return seen | {"features": seen["normed"][:, 0], "tokens_per_block": counts}


PARITY = Parity(build=build, outputs=outputs)
