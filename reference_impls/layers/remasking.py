"""Which tokens a parallel decoder masks again: of those that it just decided, the ones that it is least sure of."""

import math

import torch
from torch import Tensor

__all__ = ["least_sure", "mask_ratio"]


def mask_ratio(ratio: float) -> float:
    """Share of tokens that are masked when `ratio` of the way is done: the arccos schedule."""
    return math.acos(ratio) / (math.pi * 0.5)


def least_sure(confidence: Tensor, masked: Tensor, wanted: int) -> Tensor:
    """Which tokens `(B, L)` are masked again: `wanted` of the `masked` ones, but one fewer at least than they were.

    Releases count them in the first image for the whole batch. Every image counts its own here, so that its batch does
    not matter; the counts are the same unless confidences tie, for all that tie with the last one are masked.

    Args:
        confidence: How sure each token is, `(B, L)`.
        masked: Those that were masked before the step, bool `(B, L)`.
        wanted: How many are to be masked; at least one is.
    """
    count = (masked.sum(1, keepdim=True) - 1).clamp(min=1, max=max(1, wanted))
    sure = confidence.masked_fill(~masked, torch.inf)
    return sure <= sure.sort(dim=1).values.gather(1, count - 1)
