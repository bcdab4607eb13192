"""VAR's transformer: blocks over whole scales of tokens, modulated by the class (arXiv 2404.02905, section 3.3).

Keys are those of the release (models/var.py and models/basic_var.py of FoundationVision/VAR).
"""

import math
from collections.abc import Sequence

import torch
from timm.layers.activations import GELUTanh
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.rar_transformer import KeyValues
from reference_impls.layers.swiglu_blocks import drawn

__all__ = ["PARTS", "VarBlock", "VarHeadNorm", "scale_mask"]

EPS = 1e-6
MOST_SHARPENING = math.log(100.0)
"""What the logarithm of a head's sharpness is held below."""
PARTS = 6
"""Of a block's modulation: two gates, two scales, two shifts, in this order."""


def scale_mask(scales: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The scale of every token, int64 `(1, L)`, and what attention adds, `(1, 1, L, L)`: -inf towards finer scales."""
    sizes = torch.tensor([side * side for side in scales])
    levels = torch.arange(len(scales)).repeat_interleave(sizes, output_size=sum(side * side for side in scales))
    bias = torch.zeros(len(levels), len(levels)).masked_fill(levels[:, None] < levels, -torch.inf)
    return levels[None], bias[None, None]


class VarAttention(nn.Module):
    """Attention whose queries and keys have length 1, and every head its own learned sharpness.

    Args:
        width: Channels of the tokens.
        heads: Number of heads.
        l2_norm: Whether lengths are 1; else the products are scaled by 0.25 / sqrt(d), as in the release, and not
            by 1 / sqrt(d).
    """

    zero_k_bias: Tensor

    def __init__(self, width: int, heads: int, *, l2_norm: bool = True) -> None:
        super().__init__()
        self.heads, self.l2_norm = heads, l2_norm
        self.scale = 1.0 if l2_norm else 0.25 / math.sqrt(width // heads)
        if l2_norm:
            self.scale_mul_1H11 = nn.Parameter(torch.full((1, heads, 1, 1), math.log(4.0)))
        self.mat_qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("zero_k_bias", torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor | None, start: int, cache: KeyValues | None) -> Tensor:
        """`(B, n, D)` at places from `start` on to the same shape; `cache` holds what is before, and is filled."""
        qkv = functional.linear(x, self.mat_qkv.weight, torch.cat([self.q_bias, self.zero_k_bias, self.v_bias]))
        query, key, value = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.l2_norm:
            sharpness = self.scale_mul_1H11.clamp(max=MOST_SHARPENING).exp()
            query, key = functional.normalize(query, dim=-1) * sharpness, functional.normalize(key, dim=-1)
            # Under autocast lengths are float32, which is more than the cache has to keep.
            query, key = query.to(value.dtype), key.to(value.dtype)
        if cache is not None:
            key, value = cache.extended(torch.stack([key, value]), start)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=self.scale)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class VarBlock(nn.Module):
    """A pre-norm residual block whose norms and residuals the class modulates (AdaLN).

    Args:
        width: Channels of tokens and condition.
        heads: Attention heads.
        mlp_ratio: Hidden channels of the MLP over `width`.
        shared: Take the modulation that all blocks share, and add the block's own table to it.
        l2_norm: As in `VarAttention`.
    """

    def __init__(
        self, width: int, heads: int, mlp_ratio: float = 4.0, *, shared: bool = False, l2_norm: bool = True
    ) -> None:
        super().__init__()
        if shared:
            self.ada_gss = drawn(1, 1, PARTS, width)
        self.attn = VarAttention(width, heads, l2_norm=l2_norm)
        self.ffn = Mlp(width, round(width * mlp_ratio), act_layer=GELUTanh)
        self.norm = nn.LayerNorm(width, eps=EPS, elementwise_affine=False)
        self.ada_lin = None if shared else nn.Sequential(nn.SiLU(), nn.Linear(width, PARTS * width))

    def forward(
        self, x: Tensor, condition: Tensor, bias: Tensor | None = None, start: int = 0, cache: KeyValues | None = None
    ) -> Tensor:
        """Tokens `(B, n, D)` to the same shape.

        `condition` is the class, `(B, D)`, or the shared modulation, `(B, 6 D)`; the rest is as in `VarAttention`.
        """
        parts = (condition if self.ada_lin is None else self.ada_lin(condition)).unflatten(1, (1, PARTS, -1))
        if self.ada_lin is None:
            parts = parts + self.ada_gss
        gate1, gate2, scale1, scale2, shift1, shift2 = parts.unbind(2)
        x = x + gate1 * self.attn(self.norm(x) * (1.0 + scale1) + shift1, bias, start, cache)
        out: Tensor = x + gate2 * self.ffn(self.norm(x) * (1.0 + scale2) + shift2)
        return out


class VarHeadNorm(nn.Module):
    """The modulated norm in front of the head: scale, then shift."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=EPS, elementwise_affine=False)
        self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens `(B, n, D)` and classes `(B, D)` to tokens."""
        scale, shift = self.ada_lin(condition).unsqueeze(1).chunk(2, dim=2)
        out: Tensor = self.norm(x) * (1.0 + scale) + shift
        return out
