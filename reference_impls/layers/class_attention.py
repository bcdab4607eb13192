"""Keeping the patches that the class token attends to most, and what may become of the others."""

from dataclasses import replace

import torch
from torch import Tensor

from reference_impls.layers.reduction import TokenState, select, with_prefix

__all__ = ["keep_and_fuse"]


def keep_and_fuse(state: TokenState, score: Tensor, kept: int, prefix: int, *, fuse: bool) -> TokenState:
    """Keep the `kept` patches of the highest `score` `(B, patches)`, in falling score, of equal ones the earlier.

    `fuse` puts one more token at the end: the sum of the others, each times its score; scores are not made to add up
    to one (EViT, Liang et al., ICLR 2022, section 3.2).
    """
    best = score.argsort(dim=1, descending=True, stable=True)[:, :kept]
    index = with_prefix(best, prefix)
    if not fuse:
        return select(state, index)
    weights = torch.cat((score.new_zeros(score.shape[0], prefix), score.scatter(1, best, 0.0)), dim=1)
    fused = weights[:, None].to(state.x.dtype) @ state.x
    last = torch.full_like(weights, index.shape[1], dtype=torch.int64)
    goes_to = last.scatter(1, index, torch.arange(index.shape[1], device=index.device).expand_as(index))
    left = select(state, index, goes_to)
    return replace(left, x=torch.cat((left.x, fused), dim=1))
