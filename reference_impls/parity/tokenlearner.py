"""TokenLearner beside google-research/scenic, whose images are `(B, H, W, C)`."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.classifiers.tokenlearner import TokenLearnerVit
from reference_impls.parity._taps import tapped
from tokenmark.contracts import Parity, ParityCase

__all__ = ["PARITY"]


def build(config: Mapping[str, Any], _variant: str) -> TokenLearnerVit:
    """The module that the release's configuration describes."""
    return TokenLearnerVit(**config)


def outputs(module: TokenLearnerVit, case: ParityCase) -> dict[str, Tensor]:
    """Patches, blocks, learned and fused tokens, the last norm, the classifier's input and logits."""
    depth = len(module.blocks)
    parts = {
        "embedding": module.patch_embed,
        **{f"block{i}": block for i, block in enumerate(module.blocks)},
        **{f"learned_{i}": learner for i, learner in enumerate(module.learners)},
        **{f"fused_{i}": fuser for i, fuser in enumerate(module.fusers)},
        "encoded": module.norm,
        "features": module.pre_logits,
        "logits": module,
    }
    with tapped(parts) as seen:
        module(case.inputs["image"].permute(0, 3, 1, 2))
    counts = torch.tensor([seen[f"block{i}"].shape[1] for i in range(depth)])
    return seen | {"embedding": seen["embedding"].permute(0, 2, 3, 1), "tokens_per_block": counts}


PARITY = Parity(build=build, outputs=outputs)
