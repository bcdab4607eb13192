"""Which levels of a residual code are masked: how many of each position's, always the deepest (ResGen, 2412.10208)."""

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from tokenmark.contracts import MethodError

__all__ = ["MaskSchedule", "counts_of_draw", "counts_written", "hidden", "mask_share", "masked_after"]

MaskSchedule: TypeAlias = Literal["cosine", "arccos"]


def mask_share(ratio: Tensor, schedule: MaskSchedule) -> Tensor:
    """The share of tokens that are masked at `ratio` `(...)`, 0 to 1, of the way: from 1 down to 0."""
    if schedule == "cosine":
        return torch.cos(ratio * (math.pi / 2))
    return torch.acos(ratio) / (math.pi / 2)


def masked_after(total: int, steps: int, schedule: MaskSchedule) -> list[int]:
    """How many of `total` tokens are masked still after each of so many steps, computed on the host.

    The share rounded up, but every step writes one at least, and the last all.

    Raises:
        MethodError: more steps than tokens.
    """
    if steps > total:
        raise MethodError(f"steps must be at most the {total} tokens of an image, got {steps}")
    ratios = torch.arange(1, steps + 1, dtype=torch.float64, device="cpu") / steps
    # A share that rounding leaves a hair above a whole number is not rounded up to the next.
    shares = (total * mask_share(ratios, schedule) - 1e-9).ceil().long().tolist()
    found, masked = [], total
    for step, share in enumerate(shares, start=1):
        masked = max(steps - step, min(masked - 1, share))
        found.append(masked)
    return found


def counts_of_draw(scores: Tensor, masked: Tensor, levels: int) -> Tensor:
    """How many tokens of each position are masked, int64 `(B, L)`, where the `masked` `(B,)` lowest `scores` are.

    Scores `(B, L * D)`, one for every token, that are all equally distributed make the counts of a multivariate
    hypergeometric draw: of L sorts of D tokens each, `masked` ones without replacement.
    """
    ranks = scores.argsort(dim=1, stable=True).argsort(dim=1)
    counts: Tensor = (ranks < masked.unsqueeze(1)).unflatten(1, (-1, levels)).sum(2)
    return counts


def hidden(counts: Tensor, levels: int) -> Tensor:
    """Boolean `(B, L, D)`: true for the deepest `counts` `(B, L)` levels of every position."""
    return torch.arange(levels, device=counts.device) >= (levels - counts).unsqueeze(-1)


def counts_written(counts: Tensor, scores: Tensor, left: int, masked: int) -> Tensor:
    """Counts `(B, L)` of masked tokens when `left` of the `masked` are, of `counts` before.

    The masked tokens of the highest `scores` `(B, L, D)` say how many of a position are written; the coarsest of its
    masked ones are. So scores that are equally distributed leave counts as `counts_of_draw` draws them.
    """
    levels = scores.shape[2]
    places = scores.masked_fill(~hidden(counts, levels), -torch.inf).flatten(1).topk(masked - left, dim=1).indices
    written = torch.zeros_like(counts).scatter_add(1, places // levels, torch.ones_like(places))
    return counts - written
