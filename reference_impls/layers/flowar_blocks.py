"""FlowAR's blocks and its flow network: what a position is told modulates it alone (arXiv 2412.15205, section 3.3)."""

from typing import Literal, TypeAlias

from timm.layers.mlp import SwiGLU
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.dit_blocks import TimestepEmbedder, modulation
from reference_impls.layers.llama_gpt import KeptPairs, rotated

__all__ = ["EPS", "CrossBlock", "FlowKind", "FlowNet", "SpatialBlock"]

EPS = 1e-6
HEAD_DIM = 64
"""Channels of a head of the flow network."""
FlowKind: TypeAlias = Literal["spatial", "cross"]


class RotaryAttention(nn.Module):
    """Attention with rotary positions, of tokens to themselves or to others that lie at the same places.

    Args:
        width: Channels of the tokens.
        heads: Number of heads.
        dropout: Of the attention, and of what it gives; in training only.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query, self.pairs, self.proj = (
            nn.Linear(width, width),
            nn.Linear(width, 2 * width),
            nn.Linear(width, width),
        )

    def forward(
        self,
        x: Tensor,
        rotation: Tensor,
        *,
        seen: Tensor | None = None,
        mask: Tensor | None = None,
        start: int = 0,
        kept: KeptPairs | None = None,
    ) -> Tensor:
        """`(B, n, D)` to the same shape.

        Args:
            x: Tokens at places from `start` on.
            rotation: Of these places, `(n, d / 2, 2)`.
            seen: What is attended to in place of `x`, of its shape.
            mask: bool, true where a row may look.
            start: How many places are before these.
            kept: What holds the keys and values of those, and is filled.
        """
        query = self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        pairs = self.pairs(x if seen is None else seen)
        key, value = pairs.unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = rotated(query, rotation), rotated(key, rotation)
        if kept is not None:
            key, value = kept.extended(key, value, start)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        out = self.proj(mixed.transpose(1, 2).flatten(2))
        return functional.dropout(out, dropout, training=self.training)


def gated_mlp(width: int, mlp_ratio: float) -> SwiGLU:
    """Named SwiGLU in the release, but its gate is a GELU."""
    return SwiGLU(width, int(width * mlp_ratio * 2 / 3), act_layer=nn.GELU)


class SpatialBlock(nn.Module):
    """A pre-norm residual block, each of whose positions may be modulated by a condition of its own.

    The blocks over scales have the class for a condition, the same everywhere; those of the flow network, its first
    kind ("spatial adaLN"), time and features of the position.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=EPS, elementwise_affine=False)
        self.attn = RotaryAttention(width, heads, dropout)
        self.mlp = gated_mlp(width, mlp_ratio)
        self.ada_lin = modulation(width, 6)

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        rotation: Tensor,
        mask: Tensor | None = None,
        start: int = 0,
        kept: KeptPairs | None = None,
    ) -> Tensor:
        """Tokens `(B, n, D)` and conditions `(B, n or 1, D)` to tokens; the rest is as in `RotaryAttention`."""
        gate1, scale1, shift1, gate2, scale2, shift2 = self.ada_lin(condition).chunk(6, dim=2)
        shown = self.norm(x) * (1.0 + scale1) + shift1
        x = x + gate1 * self.attn(shown, rotation, mask=mask, start=start, kept=kept)
        out: Tensor = x + gate2 * self.mlp(self.norm(x) * (1.0 + scale2) + shift2)
        return out


class CrossBlock(nn.Module):
    """The flow network's other kind: time modulates attention; features are attended to, and modulate the MLP."""

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=EPS, elementwise_affine=False)
        self.attn = RotaryAttention(width, heads, dropout)
        self.cross = RotaryAttention(width, heads, dropout)
        self.mlp = gated_mlp(width, mlp_ratio)
        self.time_lin, self.place_lin = modulation(width, 3), modulation(width, 3)

    def forward(self, x: Tensor, time: Tensor, features: Tensor, rotation: Tensor) -> Tensor:
        """Tokens `(B, n, D)`, times `(B or 1, 1, D)` and features `(B, n, D)` to tokens."""
        gate, scale, shift = self.time_lin(time).chunk(3, dim=2)
        x = x + gate * self.attn(self.norm(x) * (1.0 + scale) + shift, rotation)
        x = x + self.cross(self.norm(x), rotation, seen=features)
        gate, scale, shift = self.place_lin(features + time).chunk(3, dim=2)
        out: Tensor = x + gate * self.mlp(self.norm(x) * (1.0 + scale) + shift)
        return out


class FlowNet(nn.Module):
    """The velocity of all tokens of one scale at once, given what the transformer over scales says of each.

    Args:
        channels: Channels of a latent, C.
        features: Channels of what is given.
        width: Its own, D, a multiple of 64.
        depth: Number of blocks.
        kind: Of blocks: `SpatialBlock` or `CrossBlock`.
        mlp_ratio: Hidden channels of the MLPs over two thirds of the width.
        dropout: As in `RotaryAttention`.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        width: int,
        depth: int,
        kind: FlowKind,
        *,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        block = SpatialBlock if kind == "spatial" else CrossBlock
        self.kind = kind
        self.input_proj = nn.Linear(channels, width)
        self.time_embed = TimestepEmbedder(width, exact=True)
        self.cond_embed = nn.Linear(features, width)
        self.blocks = nn.ModuleList(block(width, width // HEAD_DIM, mlp_ratio, dropout) for _ in range(depth))
        self.norm = nn.RMSNorm(width, eps=EPS, elementwise_affine=False)
        self.ada_lin = modulation(width, 2)
        self.output_proj = nn.Linear(width, channels)

    def forward(self, x: Tensor, ticks: Tensor, features: Tensor, rotation: Tensor) -> Tensor:
        """Velocities `(B, n, C)` of noisy latents `x` `(B, n, C)`.

        Args:
            x: One scale's, row by row.
            ticks: Times in thousandths, `(B,)`, or `(1,)` for all of them.
            features: What `cond_embed` gave, `(B, n, D)`.
            rotation: Of the places, `(n, d / 2, 2)`.
        """
        time = self.time_embed(ticks).unsqueeze(1)
        x = self.input_proj(x)
        told = features + time
        for block in self.blocks:
            x = block(x, told, rotation) if self.kind == "spatial" else block(x, time, features, rotation)
        scale, shift = self.ada_lin(told).chunk(2, dim=2)
        out: Tensor = self.output_proj(self.norm(x) * (1.0 + scale) + shift)
        return out
