"""Sparsifiner's predictor of who should see whom: a cheap approximation of attention, cut to its greatest entries.

Wei et al., "Sparsifiner: Learning Sparse Instance-Dependent Attention for Efficient Vision Transformers", CVPR 2023;
the order of operations is the release's.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from reference_impls.layers.precision import without_autocast
from reference_impls.layers.vit_attention import wide

__all__ = ["MaskPredictor", "Prediction", "Sparsity", "silence"]


@dataclass(frozen=True, slots=True)
class Sparsity:
    """How attention is approximated, and how much of it is kept."""

    attn_keep_rate: float | tuple[float, ...] = 0.25
    """Of all tokens the share of keys that a query sees, in every block or in each: ceil(rate * tokens)."""
    score_above: float | None = None
    """What the approximate attention to a key must exceed to be seen, in place of a share."""
    basis_above: float = 0.02
    """Entries of the basis count from here on, their signs left out; others are 0."""
    basis_top: int | None = 8
    """Of how many basis rows each query's attention is made up; None: of those above `coefficient_above`."""
    coefficient_above: float = 0.05
    reduce_n: int = 6
    """The basis has a row for so many tokens."""
    reduce_c: int = 2
    """Queries and keys are made narrower by this factor."""
    shared_projection: bool = False
    """Whether the basis is also what reduces the keys."""


class Prediction(NamedTuple):
    """What is predicted for the patches' queries, in every head."""

    coefficients: Tensor
    """`(B, heads, patches, n)`, of the n basis rows; float32 or wider, as is the attention."""
    attention: Tensor
    """`(B, heads, patches, N)`, the approximate attention."""
    mask: Tensor
    """`(B, heads, N, N)` bool, the keys that a query may see; prefix tokens see all."""


class MaskPredictor(nn.Module):
    """The predictor of one block, which its heads share."""

    def __init__(self, tokens: int, prefix: int, head_width: int, budget: int, rules: Sparsity) -> None:
        """`tokens`: all that enter, of which `prefix` are no patches; `budget`: how many keys a query sees."""
        super().__init__()
        self.prefix, self.budget, self.rules = prefix, budget, rules
        self.proj_c_q = nn.Linear(head_width, head_width // rules.reduce_c)
        self.proj_c_k = nn.Linear(head_width, head_width // rules.reduce_c)
        self.proj_n, basis = (
            nn.Parameter(nn.init.trunc_normal_(torch.empty(tokens, tokens // rules.reduce_n), std=0.02)) for _ in "nb"
        )
        self.proj_back_n = self.proj_n if rules.shared_projection else basis

    @property
    def basis(self) -> Tensor:
        """`(n, N)`: the rows that approximate attention is made of, without signs and what is below the threshold."""
        basis = self.proj_back_n.abs().t()
        return torch.where(basis > self.rules.basis_above, basis, 0.0)

    def forward(self, q: Tensor, k: Tensor, alive: Tensor | None = None, *, whole: bool = False) -> Prediction:
        """From queries and keys `(B, heads, N, D)`; patches that are not `alive` `(B, patches)` are seen by none.

        `whole` leaves basis and coefficients as they are, as the first phase of training does.
        """
        q, k = self.proj_c_q(q), self.proj_c_k(k)
        if alive is not None:
            q, k = silence(q, alive), silence(k, alive)
        with without_autocast(q):
            kind = wide(q)
            # The release scales by the number of heads, where one would expect their width.
            logits = q[:, :, self.prefix :].to(kind) @ (k.to(kind).transpose(2, 3) @ self.proj_n.to(kind))
            coefficients = (logits * q.shape[1] ** -0.5).softmax(dim=-1)
            coefficients = coefficients if whole else self._cut(coefficients)
            attention = coefficients @ (self.proj_back_n.t() if whole else self.basis).to(kind)
        return Prediction(coefficients, attention, self._mask(attention.detach(), alive))

    def _cut(self, coefficients: Tensor) -> Tensor:
        top, least = self.rules.basis_top, self.rules.coefficient_above
        chosen = coefficients > least if top is None else _greatest(coefficients.detach(), top)
        return torch.where(chosen, coefficients, 0.0)

    def _mask(self, attention: Tensor, alive: Tensor | None) -> Tensor:
        score = attention
        if alive is not None:
            seen = torch.cat((alive.new_ones(alive.shape[0], self.prefix), alive), dim=1)
            score = score.masked_fill(~seen[:, None, None], -torch.inf)
        least = self.rules.score_above
        mask = _greatest(score, self.budget) if least is None else score > least
        return torch.cat((mask.new_ones(*mask.shape[:2], self.prefix, mask.shape[3]), mask), dim=2)


def silence(x: Tensor, alive: Tensor) -> Tensor:
    """Queries, keys or values `(B, heads, N, D)` with zeros for the patches, its last rows, that are not `alive`."""
    kept = torch.cat((alive.new_ones(alive.shape[0], x.shape[2] - alive.shape[1]), alive), dim=1)
    return torch.where(kept[:, None, :, None], x, 0.0)


def _greatest(values: Tensor, count: int) -> Tensor:
    """Where the `count` greatest values of every row are, of equal ones the earlier."""
    best = values.argsort(dim=-1, descending=True, stable=True)[..., :count]
    return torch.zeros_like(values, dtype=torch.bool).scatter(-1, best, True)
