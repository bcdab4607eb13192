"""Blocks of a diffusion transformer that thins its tokens out and brings them back (FlexDiT, arXiv 2412.06028).

Tokens are `(B, L, D)`, those of a square grid in row-major order; conditions are `(B, D)`. All norms, modulations and
MLPs are DiT's.
"""

import math
from collections.abc import Sequence

import torch
from timm.layers.activations import GELUTanh
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention

from reference_impls.layers.dit_blocks import EPS, DiTBlock, modulate, modulation
from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.layers.swin import relative_index

__all__ = ["BiasedBlock", "Dumbbell", "PoolingBlock", "RelativeBias"]


class RelativeBias(nn.Module):
    """A learned bias of attention for every offset between two cells of a grid, per head.

    The table has three rows more, for a class token (BEiT, arXiv 2106.08254) that there is none of here.
    """

    def __init__(self, side: int, heads: int) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * side - 1) ** 2 + 3, heads))
        self.register_buffer("relative_position_index", relative_index((side, side)))

    def forward(self) -> Tensor:
        """`(heads, L, L)`."""
        return self.relative_position_bias_table[self.get_buffer("relative_position_index")].permute(2, 0, 1)


class BiasedBlock(DiTBlock):
    """DiT's block, whose attention may be given a bias."""

    def forward(self, x: Tensor, condition: Tensor, bias: Tensor | None = None) -> Tensor:
        """Tokens to tokens; `bias` `(heads, L, L)` is added to the logits of attention."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, dim=1)
        mask = None if bias is None else bias[None].to(x.dtype)
        x = x + gate1.unsqueeze(1) * self.attn(modulate(self.norm1(x), shift1, scale1), attn_mask=mask)
        out: Tensor = x + gate2.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift2, scale2))
        return out


class PooledAttention(nn.Module):
    """Every token gets the mean of all values: attention whose weights are all alike."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.v = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens to one row `(B, 1, D)`, the same for all of them."""
        out: Tensor = self.proj(self.v(x.mean(dim=1, keepdim=True)))  # the mean first: the layer is linear
        return out


class CrossAttention(nn.Module):
    """Attention of some tokens to others."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, others: Tensor) -> Tensor:
        """Tokens `(B, L, D)` that ask and `(B, M, D)` that answer, to `(B, L, D)`."""
        query = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key, value = self.kv(others).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        out: Tensor = self.proj(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return out


class _Modulated(nn.Module):
    """Norms, MLP and modulation, as DiT's block has them."""

    def __init__(self, width: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, eps=EPS, elementwise_affine=False)
        self.mlp = Mlp(width, int(width * mlp_ratio), act_layer=GELUTanh)
        self.adaLN_modulation = modulation(width, 6)

    def _chunks(self, condition: Tensor) -> tuple[Tensor, ...]:
        modulated: Tensor = self.adaLN_modulation(condition)
        return modulated.chunk(6, dim=1)

    def _fed(self, x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        out: Tensor = x + gate.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift, scale))
        return out


class PoolingBlock(_Modulated):
    """A block that mixes tokens by their mean ("Poolingformer", section 3.2)."""

    def __init__(self, width: int, mlp_ratio: float) -> None:
        super().__init__(width, mlp_ratio)
        self.attn = PooledAttention(width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens to tokens."""
        shift, scale, gate, *rest = self._chunks(condition)
        x = x + gate.unsqueeze(1) * self.attn(modulate(self.norm1(x), shift, scale))
        return self._fed(x, *rest)


class MergeBlock(_Modulated):
    """Few tokens attend to many; one norm and one modulation serve both."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__(width, mlp_ratio)
        self.attn = CrossAttention(width, heads)

    def forward(self, x: Tensor, others: Tensor, condition: Tensor) -> Tensor:
        """Tokens `(B, L, D)`, and others `(B, M, D)` that they attend to, to `(B, L, D)`."""
        shift, scale, gate, *rest = self._chunks(condition)
        asked = modulate(self.norm1(others), shift, scale)
        x = x + gate.unsqueeze(1) * self.attn(modulate(self.norm1(x), shift, scale), asked)
        return self._fed(x, *rest)


class RecoverBlock(MergeBlock):
    """All tokens again: the few, spread over the grid, are added to the many, and attend to the few."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__(width, heads, mlp_ratio)
        self.merged_layer1 = nn.Linear(width, width)
        self.merged_layer2 = nn.Linear(width, width)

    def forward(self, x: Tensor, others: Tensor, condition: Tensor) -> Tensor:
        """The few `(B, M, D)`, or as many as there are already, and the many `(B, L, D)` to `(B, L, D)`."""
        side, target = (math.isqrt(tokens.shape[1]) for tokens in (x, others))
        spread = as_rows(functional.interpolate(as_grid(x, side), size=(target, target), mode="nearest"))
        return super().forward(self.merged_layer1(spread) + self.merged_layer2(others), x, condition)


class Dumbbell(nn.Module):
    """Tokens are pooled, refined while they are few, recovered, and refined again ("SDTM", section 3.3).

    Args:
        width: Channels of tokens and condition.
        heads: Attention heads.
        mlp_ratio: Hidden channels of the MLPs over `width`.
        grid: Side of the grid of all tokens.
        few: Side of the grid of pooled tokens; a divisor of `grid`.
        blocks: How many blocks merge, work on the few, recover, and work on all.
    """

    def __init__(self, *, width: int, heads: int, mlp_ratio: float, grid: int, few: int, blocks: Sequence[int]) -> None:
        super().__init__()
        merge, semantic, recover, normal = blocks
        self.grid, self.few = grid, few
        self.token_merge_blocks = nn.ModuleList(MergeBlock(width, heads, mlp_ratio) for _ in range(merge))
        self.semantic_blocks = nn.ModuleList(DiTBlock(width, heads, mlp_ratio) for _ in range(semantic))
        self.token_recover_blocks = nn.ModuleList(RecoverBlock(width, heads, mlp_ratio) for _ in range(recover))
        self.normal_blocks = nn.ModuleList(DiTBlock(width, heads, mlp_ratio) for _ in range(normal))

    def pooled(self, x: Tensor) -> Tensor:
        """The mean of every `grid / few` by `grid / few` cells."""
        return as_rows(functional.avg_pool2d(as_grid(x, self.grid), self.grid // self.few))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """All tokens to all tokens."""
        few = self.pooled(x)
        for block in self.token_merge_blocks:
            few = block(few, x, condition)
        for block in self.semantic_blocks:
            few = block(few, condition)
        # Every one of these is given all tokens as they came in; only the first spreads, for then there are all again.
        hidden = few
        for block in self.token_recover_blocks:
            hidden = block(hidden, x, condition)
        for block in self.normal_blocks:
            hidden = block(hidden, condition)
        return hidden
