"""TokenLearner (arXiv 2106.11297, section 2): a few tokens as weighted sums of all, and the way back (TokenFuser)."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.flax_layers import FlaxConv, FlaxDense, FlaxMlp

__all__ = ["TokenFuser", "TokenLearner", "TokenLearnerV10", "TokenLearnerV11"]

EPS = 1e-6
BOTTLENECK = 64
"""Hidden channels of the MLPs that weigh."""


class TokenLearner(nn.Module, ABC):
    """Learned tokens from weight maps over all tokens."""

    @abstractmethod
    def maps(self, x: Tensor) -> Tensor:
        """How much every token of `x` `(B, N, C)` weighs in each learned one, `(B, n, N)`."""

    def forward(self, x: Tensor) -> Tensor:
        """Tokens `(B, N, C)` to learned ones `(B, n, C)`: sums of the tokens as they are, not normed."""
        return self.maps(x) @ x


class TokenLearnerV10(TokenLearner):
    """As in the paper: four 3x3 convolutions over a square grid, and a sigmoid."""

    def __init__(self, width: int, tokens: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.convs = nn.ModuleList(
            FlaxConv(width if layer == 0 else tokens, tokens, 3, padding=1, bias=False) for layer in range(4)
        )

    def maps(self, x: Tensor) -> Tensor:
        """Each between 0 and 1, apart from the others."""
        seen = self.norm(x).transpose(1, 2).unflatten(2, (self.grid, self.grid))
        for layer, conv in enumerate(self.convs):
            seen = conv(seen if layer == 0 else functional.gelu(seen, approximate="tanh"))
        return torch.sigmoid(seen.flatten(2))


class TokenLearnerV11(TokenLearner):
    """As the authors improved it later: an MLP on every token, and a softmax over the tokens."""

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.mlp = FlaxMlp(width, BOTTLENECK, tokens)

    def maps(self, x: Tensor) -> Tensor:
        """Each sums to 1 over the tokens."""
        logits: Tensor = self.mlp(self.norm(x))
        return logits.transpose(1, 2).softmax(dim=-1)


class TokenFuser(nn.Module):
    """Learned tokens, mixed among each other, and spread over all places by what is there (section 2)."""

    def __init__(self, width: int, tokens: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.mix = FlaxDense((tokens,), (tokens,))
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.mlp = FlaxMlp(width, BOTTLENECK, tokens)

    def forward(self, tokens: Tensor, original: Tensor) -> Tensor:
        """Learned tokens `(B, n, C)` and the places `(B, N, C)` that they came from, to `(B, N, C)`."""
        mixed: Tensor = self.norm2(self.mix(self.norm1(tokens).transpose(1, 2)).transpose(1, 2))
        weights: Tensor = torch.sigmoid(self.mlp(self.norm(original)))
        return weights @ mixed
