"""A transformer over a grid of tokens that knows places by rotation only: one part of every head per axis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from timm.layers.mlp import SwiGLU
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.precision import at_least_float32
from tokenmark.contracts import MethodError

__all__ = ["AxialRotary", "AxialTransformer", "TransformerSize"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerSize:
    """Sizes of one transformer."""

    width: int
    layers: int
    heads: int
    mlp_ratio: float = 8 / 3


class AxialRotary(nn.Module):
    """Rotary positions (RoFormer, arXiv 2104.09864, section 3.2) along the axes of a grid, the last axes first served.

    A head's channels are pairs of neighbours. The pairs are shared out evenly among the axes; what does not divide
    goes to the last ones.

    Args:
        dim: Channels of a head, even.
        shape: The grid whose table is kept; any other is computed when it is met.
        theta: Slowest angular period is `2 pi theta`, the fastest `2 pi`.
    """

    table: Tensor

    def __init__(self, dim: int, shape: Sequence[int], theta: float = 10_000.0) -> None:
        super().__init__()
        if dim % 2 or dim // 2 < len(shape):
            raise MethodError(f"a head of {dim} channels cannot be turned along {len(shape)} axes")
        self.dim, self.shape, self.theta = dim, tuple(shape), theta
        self.register_buffer("table", self._table(self.shape), persistent=False)

    def angles(self, shape: Sequence[int]) -> Tensor:
        """Angles `(L, dim / 2)`, float32, of the cells of a grid in row-major order."""
        even, rest = divmod(self.dim // 2, len(shape))
        parts = []
        for axis, size in enumerate(shape):
            pairs = even + (axis >= len(shape) - rest)
            speeds = torch.exp(-math.log(self.theta) * torch.arange(pairs, dtype=torch.float32) / pairs)
            along = torch.arange(size, dtype=torch.float32)[:, None] * speeds
            view = [1] * len(shape) + [pairs]
            view[axis] = size
            parts.append(along.view(view).expand(*shape, pairs))
        return torch.cat(parts, dim=-1).flatten(0, -2)

    def _table(self, shape: Sequence[int]) -> Tensor:
        angles = self.angles(shape).repeat_interleave(2, dim=-1)
        return torch.stack([angles.cos(), angles.sin()])

    def forward(self, shape: Sequence[int]) -> Tensor:
        """Cosines and sines `(2, L, dim)` of a grid."""
        return self.table if tuple(shape) == self.shape else self._table(shape).to(self.table)


def rotated(x: Tensor, table: Tensor) -> Tensor:
    """Heads `(B, heads, L, dim)` turned by cosines and sines `(2, L, dim)`."""
    pairs = x.unflatten(-1, (-1, 2))
    turned = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2)
    return (at_least_float32(x) * table[0] + at_least_float32(turned) * table[1]).to(x.dtype)


class Block(nn.Module):
    """Pre-norm residual block: attention over rotated queries and keys, then SwiGLU."""

    def __init__(self, size: TransformerSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.norm1 = nn.LayerNorm(size.width)
        self.qkv = nn.Linear(size.width, 3 * size.width)
        self.proj = nn.Linear(size.width, size.width)
        self.norm2 = nn.LayerNorm(size.width)
        self.mlp = SwiGLU(size.width, round(size.width * size.mlp_ratio))

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """`(B, L, width)` to the same shape."""
        query, key, value = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(rotated(query, table), rotated(key, table), value)
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class AxialTransformer(nn.Module):
    """Blocks one after the other, then a norm.

    Args:
        size: Its sizes.
        shape: The usual grid of tokens.
        theta: As in `AxialRotary`.
    """

    def __init__(self, size: TransformerSize, shape: Sequence[int], theta: float = 10_000.0) -> None:
        super().__init__()
        if size.width % size.heads:
            raise MethodError(f"a width of {size.width} cannot be shared by {size.heads} heads")
        self.rotary = AxialRotary(size.width // size.heads, shape, theta)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)

    def forward(self, tokens: Tensor, shape: Sequence[int]) -> Tensor:
        """Tokens `(B, L, width)` of a grid of `shape`, in row-major order, to the same shape."""
        table = self.rotary(shape)
        for block in self.blocks:
            tokens = block(tokens, table)
        out: Tensor = self.norm(tokens)
        return out
