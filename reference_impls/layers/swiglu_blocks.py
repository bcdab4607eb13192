"""The transformer blocks of Hita and VFMTok, with SwiGLU, and what they put in front of them."""

from functools import partial
from math import isqrt

import torch
from timm.layers.mlp import GluMlp
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.precision import at_least_float32

__all__ = ["SWIGLU", "Attention", "Projector", "SwigluStack", "drawn", "resized_positions"]

SWIGLU = (
    (r"\.ffnet\.w12\.", ".ffnet.fc1."),
    (r"\.ffnet\.w3\.", ".ffnet.fc2."),
    (r"\.attn1\.to_([qkv])\.", r".attn1.\1_proj."),
    (r"\.attn1\.to_out\.0\.", ".attn1.out_proj."),
)
"""The releases' keys to ours."""


class Attention(nn.Module):
    """Self-attention.

    Args:
        width: Channels of the tokens.
        heads: Number of heads.
        inner: Channels of all heads together; `width` by default.
        qkv_bias: Whether the three projections add a bias.
    """

    def __init__(self, width: int, heads: int, inner: int | None = None, *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        inner = inner or width
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, inner, bias=qkv_bias) for _ in range(3))
        self.out_proj = nn.Linear(inner, width)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """`(B, L, width)` to the same; `mask` (bool, `(L, L)`) is true where a row may look."""
        query, key, value = (
            projection(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class SwigluBlock(nn.Module):
    """Pre-norm residual block: attention, then SwiGLU of two thirds the width, rounded up to a multiple of 8."""

    def __init__(self, width: int, heads: int, inner: int, mlp_dim: int, *, qkv_bias: bool) -> None:
        super().__init__()
        hidden = (int(mlp_dim * 2 / 3) + 7) // 8 * 8
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, heads, inner, qkv_bias=qkv_bias)
        self.norm2 = nn.LayerNorm(width)
        self.ffnet = GluMlp(width, 2 * hidden, act_layer=nn.SiLU, gate_last=False)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """`(B, L, width)` to the same shape."""
        x = x + self.attn1(self.norm1(x), mask=mask, causal=causal)
        out: Tensor = x + self.ffnet(self.norm2(x))
        return out


class SwigluStack(nn.Module):
    """Blocks one after the other.

    Args:
        width: Channels of the tokens.
        depth: Number of blocks.
        heads: Heads of each.
        mlp_dim: Width of the MLP before two thirds are taken of it.
        inner: Channels of all heads together; `width` by default.
        causal: Whether a token sees only itself and those before it, where no mask says otherwise.
        qkv_bias: Whether queries, keys and values have a bias.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        mlp_dim: int,
        *,
        inner: int | None = None,
        causal: bool,
        qkv_bias: bool = True,
    ) -> None:
        super().__init__()
        self.causal = causal
        block = partial(SwigluBlock, width, heads, inner or width, mlp_dim, qkv_bias=qkv_bias)
        self.layers = nn.ModuleList(block() for _ in range(depth))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B, L, width)` to the same; `mask` (bool, `(L, L)`) is true where a row may look."""
        for layer in self.layers:
            x = layer(x, mask=mask, causal=self.causal and mask is None)
        return x


class Projector(nn.Module):
    """From a foundation model's width to the tokenizer's: linear, norm, ReLU, linear, norm."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        first, second = nn.Linear(inputs, width, bias=False), nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(first, nn.LayerNorm(width), nn.ReLU(), second, nn.LayerNorm(width))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, inputs)` to `(B, L, width)`."""
        out: Tensor = self.mlp(x)
        return out


def drawn(*shape: int) -> nn.Parameter:
    """A learned table, drawn anew."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(*shape), std=0.02))


def resized_positions(table: Tensor, side: int) -> Tensor:
    """A position table `(1, n*n, C)` for `side * side` cells: bicubic where n differs.

    Quirk: it samples by the factor (side + 0.1) / n and not by side / n, as DINOv2's first release did against
    rounding; the table is therefore sampled a little off the grid.
    """
    own = isqrt(table.shape[1])
    if own == side:
        return table
    grid = at_least_float32(table).unflatten(1, (own, own)).movedim(3, 1)
    resized = functional.interpolate(grid, scale_factor=(side + 0.1) / own, mode="bicubic")
    return resized.flatten(2).transpose(1, 2).to(table.dtype)
