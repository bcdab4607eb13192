"""The tokens-to-token module (arXiv 2101.11986, section 3.1): overlapping splits of an image with thin layers between.

Every split gathers neighbours, a layer looks at all of them, and the result is an image again, of half the side.
"""

import math
from typing import Literal, cast, get_args

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, unfold

from reference_impls.layers.precision import at_least_float32
from tokenmark.contracts import MethodError

__all__ = ["REDUCTION", "TokenPerformer", "TokenTransformer", "TokensToToken", "TokensType"]

TokensType = Literal["performer", "transformer"]
REDUCTION = 16
"""Pixels of the image's side per token: the splits' strides are 4, 2 and 2."""
FEATURES = 0.5
"""Random features per channel of the Performer."""
DROPOUT = 0.1
"""In the Performer's two branches, in training only."""


class SingleHead(nn.Module):
    """Self-attention of one head that narrows the tokens; its skip is its own values, which are as narrow."""

    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        # The release scales by the width of what enters, which is not the head's.
        self.scale = width**-0.5
        self.qkv = nn.Linear(width, 3 * narrow, bias=False)
        self.proj = nn.Linear(narrow, narrow)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, N, width)` to `(B, N, narrow)`."""
        q, k, v = self.qkv(x)[:, None].chunk(3, dim=-1)
        mixed = scaled_dot_product_attention(q, k, v, scale=self.scale)
        return cast("Tensor", (v + self.proj(mixed)).squeeze(1))


class TokenTransformer(nn.Module):
    """A transformer layer with one head between two splits."""

    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = SingleHead(width, narrow)
        self.norm2 = nn.LayerNorm(narrow)
        self.mlp = Mlp(narrow, narrow)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, N, width)` to `(B, N, narrow)`."""
        x = self.attn(self.norm1(x))
        return cast("Tensor", x + self.mlp(self.norm2(x)))


class TokenPerformer(nn.Module):
    """A Performer layer with one head between two splits: attention in linear time by positive random features."""

    w: Tensor

    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.kqv = nn.Linear(width, 3 * narrow)
        self.proj = nn.Linear(narrow, narrow)
        self.norm2 = nn.LayerNorm(narrow)
        self.mlp = nn.Sequential(nn.Linear(narrow, narrow), nn.GELU(), nn.Linear(narrow, narrow), nn.Dropout(DROPOUT))
        self.drop = nn.Dropout(DROPOUT)
        features = int(narrow * FEATURES)
        self.register_buffer("w", nn.init.orthogonal_(torch.empty(features, narrow)) * math.sqrt(features))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, N, width)` to `(B, N, narrow)`."""
        k, q, v = self.kqv(self.norm1(x)).chunk(3, dim=-1)
        x = v + self.drop(self.proj(self._attention(q, k, v)))
        return cast("Tensor", x + self.mlp(self.norm2(x)))

    def _attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = self._features(q), self._features(k)
        mixed = q @ (k.transpose(1, 2) @ v.to(k.dtype))
        return (mixed / (q @ k.sum(dim=1)[..., None] + 1e-8)).to(v.dtype)

    def _features(self, x: Tensor) -> Tensor:
        """`(B, N, narrow)` to `(B, N, m)`, whose products are exp(q k) on average (arXiv 2009.14794, lemma 1)."""
        x = at_least_float32(x)  # as the release does, for the exponential's sake
        w = self.w.to(x.dtype)
        return torch.exp(x @ w.t() - (x * x).sum(dim=-1, keepdim=True) / 2) / math.sqrt(len(w))


LAYERS: dict[TokensType, type[TokenPerformer] | type[TokenTransformer]] = {
    "performer": TokenPerformer,
    "transformer": TokenTransformer,
}


class TokensToToken(nn.Module):
    """Images to tokens: split 7x7 by 4, layer, split 3x3 by 2, layer, split 3x3 by 2, projection.

    Raises:
        MethodError: `tokens_type` does not exist.
    """

    def __init__(self, tokens_type: TokensType, width: int, token_dim: int) -> None:
        super().__init__()
        if tokens_type not in get_args(TokensType):
            kinds = " or ".join(get_args(TokensType))
            raise MethodError(f"tokens_type '{tokens_type}' does not exist: choose {kinds}")
        layer = LAYERS[tokens_type]
        self.attention1 = layer(3 * 7 * 7, token_dim)
        self.attention2 = layer(token_dim * 3 * 3, token_dim)
        self.project = nn.Linear(token_dim * 3 * 3, width)

    def forward(self, images: Tensor) -> Tensor:
        """`(B, 3, H, W)` of multiples of 16 pixels to `(B, H W / 256, width)`."""
        height, width = images.shape[2] // 4, images.shape[3] // 4
        x = self.attention1(unfold(images, 7, padding=2, stride=4).transpose(1, 2))
        x = x.transpose(1, 2).unflatten(2, (height, width))
        x = self.attention2(unfold(x, 3, padding=1, stride=2).transpose(1, 2))
        x = x.transpose(1, 2).unflatten(2, (height // 2, width // 2))
        return cast("Tensor", self.project(unfold(x, 3, padding=1, stride=2).transpose(1, 2)))
