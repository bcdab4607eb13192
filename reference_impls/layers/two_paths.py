"""Tokens that all stay and take one of two ways through a block: kept ones the whole of it, the others a fast layer.

Rao et al., "Dynamic Spatial Sparsification for Efficient Vision Transformers and Convolutional Neural Networks", 2023.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impls.layers.reduction import take
from reference_impls.layers.token_predictor import decide
from tokenmark.contracts import BudgetError

__all__ = ["Route", "check_ratios", "chosen"]


@dataclass(frozen=True)
class Route:
    """Which tokens of every image take the slow way."""

    order: Tensor
    """`(B, N)`, the tokens in falling score; of equal ones the earlier first."""
    kept: int
    """How many of them take the slow way in evaluation."""
    decision: Tensor | None = None
    """In training `(B, N)`, 1 for the slow way, 0 for the fast one; None in evaluation."""

    def run(self, x: Tensor, slow: Callable[[Tensor], Tensor], fast: Callable[[Tensor], Tensor]) -> Tensor:
        """What the two ways make of tokens `x` `(B, N, C)`, every token in its place.

        In training both make something of every token, so that the gradient of the decision sees the difference.
        """
        if self.decision is not None:
            weight = self.decision[..., None].to(x.dtype)
            return weight * slow(x) + (1 - weight) * fast(x)
        in_order = take(x, self.order)
        out = torch.cat((slow(in_order[:, : self.kept]), fast(in_order[:, self.kept :])), dim=1)
        return take(out, self.order.argsort(dim=1))


def chosen(log_probabilities: Tensor, ratio: float, before: Tensor | None, *, training: bool) -> Route:
    """The ways of N tokens by their predicted `log_probabilities` `(B, N, 2)`, keep first.

    int(N * ratio) tokens take the slow way. In training it is drawn instead, and never taken by a token whose last
    decision (`before`, `(B, N)`) was 0.
    """
    score = log_probabilities[..., 0]
    order = score.detach().argsort(dim=1, descending=True, stable=True)
    decision = None
    if training:
        decision = decide(log_probabilities, torch.ones_like(score) if before is None else before)
    return Route(order, int(score.shape[1] * ratio), decision)


def check_ratios(blocks: tuple[int, ...], ratios: tuple[float, ...], depth: int) -> None:
    """Refuse predictors that cannot be.

    Raises:
        BudgetError: no block, one that is not there, blocks that do not rise, or ratios that are not as many or lie
            outside [0, 1].
    """
    if (
        not blocks
        or len(blocks) != len(ratios)
        or list(blocks) != sorted({*blocks})
        or not all(0 <= b < depth for b in blocks)
    ):
        raise BudgetError(f"pruning_loc {blocks} must rise within 0 to {depth - 1}, and have a sparse_ratio for each")
    if not all(0 <= ratio <= 1 for ratio in ratios):
        raise BudgetError(f"sparse_ratio {ratios} must lie between 0 and 1")
