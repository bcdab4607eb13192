"""Finite scalar quantization: every channel is rounded to a few levels, and no codebook is learnt."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.quantizers import Quantized, Quantizer
from tokenmark.contracts import MethodError

__all__ = ["FiniteScalarQuantizer"]

MOST_LEVELS = 500
"""Beyond it the bound's margin `eps` would reach a level that a channel does not have."""


class FiniteScalarQuantizer(Quantizer):
    """A channel with L levels becomes one of L integers around 0, divided by L // 2 (FSQ, arXiv 2309.15505).

    A code is a mixed-radix number with the first channel's level as its lowest digit (section 3.1). Halves are
    rounded to even, and gradients pass straight through the rounding. There is nothing to learn and no state.

    The bound is `half * tanh(z + shift) - offset` with `half = (L - 1) * (1 + eps) / 2`, as FlexTok and
    vector-quantize-pytorch have it; the paper's listing (appendix A) shrinks by `1 - eps` in place of that, so that
    the outermost levels are not quite reached, and takes the tangent for the shift where this takes its inverse
    hyperbolic one, which puts z = 0 onto 0.

    Args:
        levels: Levels of every channel, 2 to 500 each.
        eps: Margin of the bound.
    """

    levels: Tensor
    basis: Tensor
    divisor: Tensor

    def __init__(self, levels: Sequence[int], eps: float = 1e-3) -> None:
        super().__init__()
        if not levels or not all(2 <= level <= MOST_LEVELS for level in levels):
            raise MethodError(f"FSQ needs 2 to {MOST_LEVELS} levels in every channel, got {list(levels)}")
        self.eps = eps
        self.codebook_size = math.prod(levels)
        basis = [math.prod(levels[:index]) for index in range(len(levels))]
        self.register_buffer("levels", torch.tensor(list(levels)), persistent=False)
        self.register_buffer("basis", torch.tensor(basis), persistent=False)
        self.register_buffer("divisor", (self.levels // 2).float(), persistent=False)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """One: the product of the levels."""
        return (self.codebook_size,)

    def lookup(self, codes: Tensor) -> Tensor:
        """Levels `(..., D)` in [-1, 1] of int64 `codes`."""
        digits = codes.unsqueeze(-1) // self.basis % self.levels
        return (digits - self.levels // 2) / at_least_float32(self.divisor)

    def forward(self, latents: Tensor) -> Quantized:
        """Quantise `latents` `(..., D)`; both losses are zero."""
        with torch.autocast(latents.device.type, enabled=False):
            bounded = self._bounded(at_least_float32(latents))
            rounded = bounded.detach().round()
            codes = ((rounded.long() + self.levels // 2) * self.basis).sum(-1)
            divisor = self.divisor.to(bounded)
            scaled = bounded / divisor
            straight_through = scaled + (rounded / divisor - scaled).detach()
            nothing = bounded.new_zeros(())
        return Quantized(codes, straight_through, nothing, nothing)

    def _bounded(self, latents: Tensor) -> Tensor:
        half = (self.levels - 1).to(latents) * ((1.0 + self.eps) / 2.0)
        offset = (1 - self.levels % 2).to(latents) / 2.0
        return torch.tanh(latents + torch.atanh(offset / half)) * half - offset
