"""What attention's graph says of tokens: votes, and which are alike (Zero-TPrune, arXiv 2305.17328)."""

import torch
from torch import Tensor

from reference_impls.layers.matching import cosines
from reference_impls.layers.precision import without_autocast

__all__ = ["among", "joined", "page_rank", "unlike"]


def page_rank(rows: Tensor, scores: Tensor, rounds: int) -> Tensor:
    """Weighted PageRank: scores `(B, heads, N)` after every token voted `rounds` times by its row of attention.

    `rows` is `(B, heads, N, N)`, the first scores `(B, heads, 1, N)`.
    """
    with without_autocast(rows):
        for _ in range(rounds):
            scores = scores @ rows
    return scores.squeeze(2)


def joined(scores: Tensor, variance: tuple[float, float]) -> Tensor:
    """One score per patch `(B, P)` from those of heads `(B, heads, P)`: EIR over the heads that VHF lets pass."""
    scores = scores / scores.mean(dim=2, keepdim=True)
    spread = (scores - 1).square().mean(dim=2)
    passes = (spread >= variance[0]) & (spread <= variance[1])
    passes = (passes | ~passes.any(dim=1, keepdim=True)).to(scores.dtype)
    return ((scores.square() * passes[..., None]).sum(dim=1) / passes.sum(dim=1, keepdim=True)).sqrt()


def unlike(scores: Tensor, metric: Tensor, r: int) -> Tensor:
    """Patches `(B, P - r)`, in rising position, without the `r` of the less important half that resemble another most.

    Halves by `scores` `(B, P)`, of equal ones the earlier patch ranks higher; resemblance is the cosine of `metric`
    `(B, P, D)` to a patch of the more important half. Of equally alike ones the less important goes. r <= P // 2.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    more = (scores.shape[1] + 1) // 2
    ranked = metric.gather(1, order[..., None].expand_as(metric))
    best = cosines(ranked[:, more:], ranked[:, :more]).amax(dim=2)
    dropped = order[:, more:].flip(1).gather(1, best.flip(1).argsort(dim=1, descending=True, stable=True)[:, :r])
    stays = torch.ones_like(scores, dtype=torch.int8).scatter(1, dropped, 0)
    return stays.argsort(dim=1, descending=True, stable=True)[:, : scores.shape[1] - r]


def among(rows: Tensor, index: Tensor) -> Tensor:
    """The attention `(B, heads, N, N)` of the tokens at `index` `(B, K)` to one another, rows summing to 1."""
    heads, tokens = rows.shape[1:3]
    found = rows.gather(2, index[:, None, :, None].expand(-1, heads, -1, tokens))
    found = found.gather(3, index[:, None, None].expand(-1, heads, index.shape[1], -1))
    return found / found.sum(dim=3, keepdim=True)
