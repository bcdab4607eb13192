"""Selftok's decoder: Stable Diffusion 3's MMDiT (arXiv 2403.03206, section 4), with token positions as conditions.

Two streams, tokens and patches, have weights of their own and attend to each other. Names are the release's.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.dit_blocks import (
    EPS,
    FinalLayer,
    TimestepEmbedder,
    modulation,
    unpatchify,
)

__all__ = ["MMDiT", "MMDiTSize", "gelu_mlp", "token_positions"]

HEAD_DIM = 64
PATCH = 2
"""Latents of a side of a patch."""


def token_positions(count: int) -> Tensor:
    """Positions 1000, 1008, ... of `count` tokens, float32: they continue the times, which end at 1000."""
    return 1000.0 + 8.0 * torch.arange(count, dtype=torch.float32)


def gelu_mlp(width: int) -> Mlp:
    """Linear to four times the width, tanh's GELU, and back."""
    return Mlp(width, 4 * width, act_layer=partial(nn.GELU, approximate="tanh"))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class MMDiTSize:
    """Sizes of the decoder."""

    depth: int
    """Number of blocks, and of heads; the width is 64 times that (SD3, section 4)."""
    channels: int
    """Of the latents."""
    grid: int
    """Patches of a side."""
    tokens: int
    code_dim: int
    pos_embed_max_size: int
    """Side of the table of patch positions, whose middle is used."""
    renderer: bool = False
    """Whether it starts from a learned table and not from noisy latents."""

    @property
    def width(self) -> int:
        """Channels of both streams."""
        return HEAD_DIM * self.depth


class StreamBlock(nn.Module):
    """One stream's half of a block.

    Args:
        width: Channels.
        positions: Whether the stream's positions are its condition, and not the time.
        last: Whether nothing comes after the attention but the other stream; then the time is its condition.
    """

    def __init__(self, width: int, *, positions: bool, last: bool = False) -> None:
        super().__init__()
        self.last = last
        self.norm1 = nn.LayerNorm(width, eps=EPS, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        if not last:
            self.proj = nn.Linear(width, width)
            self.norm2 = nn.LayerNorm(width, eps=EPS, elementwise_affine=False)
            self.mlp = gelu_mlp(width)
        self.adaLN_modulation = modulation(width, 2 if last else 6)
        # The release's last block has one too, without any use.
        self.t_embedder = TimestepEmbedder(width) if positions else None

    def parts(self, time: Tensor, places: Tensor) -> tuple[Tensor, ...]:
        """Shifts, scales and gates: `(1, L, D)` by positions `(L,)`, or `(B, 1, D)` by embedded times `(B, D)`."""
        if self.t_embedder is None or self.last:
            made: Tensor = self.adaLN_modulation(time).unsqueeze(1)
        else:
            made = self.adaLN_modulation(self.t_embedder(places)).unsqueeze(0)
        return made.chunk(2 if self.last else 6, dim=2)

    def heads(self, x: Tensor, parts: tuple[Tensor, ...]) -> Tensor:
        """Queries, keys and values `(3, B, H, L, d)` of the modulated stream."""
        shift, scale = parts[:2]
        qkv: Tensor = self.qkv(self.norm1(x) * (1.0 + scale) + shift)
        split: Tensor = qkv.unflatten(2, (3, -1, HEAD_DIM))
        return split.permute(2, 0, 3, 1, 4)

    def forward(self, x: Tensor, mixed: Tensor, parts: tuple[Tensor, ...]) -> Tensor:
        """The stream `(B, L, D)` after attention, which gave `mixed` `(B, H, L, d)`."""
        gate1, shift2, scale2, gate2 = parts[2:]
        x = x + gate1 * self.proj(mixed.transpose(1, 2).flatten(2))
        out: Tensor = x + gate2 * self.mlp(self.norm2(x) * (1.0 + scale2) + shift2)
        return out


class JointBlock(nn.Module):
    """Tokens and patches, attending together.

    Args:
        width: Channels.
        last: Whether the tokens end here.
    """

    def __init__(self, width: int, *, last: bool) -> None:
        super().__init__()
        self.context_block = StreamBlock(width, positions=True, last=last)
        self.x_block = StreamBlock(width, positions=False)

    def forward(
        self, context: Tensor, x: Tensor, time: Tensor, places: Tensor, *, tokens_see_patches: bool
    ) -> tuple[Tensor, Tensor]:
        """Tokens `(B, K, D)` and patches `(B, P, D)` to the same.

        Args:
            context: Tokens.
            x: Patches.
            time: Embedded times `(B, D)`.
            places: The tokens' positions `(K,)`.
            tokens_see_patches: Whether tokens attend to patches, or to tokens alone.
        """
        context_parts, x_parts = self.context_block.parts(time, places), self.x_block.parts(time, places)
        of_context = self.context_block.heads(context, context_parts)
        query, key, value = torch.cat([of_context, self.x_block.heads(x, x_parts)], dim=3)
        count = context.shape[1]
        if self.context_block.last:
            mixed = functional.scaled_dot_product_attention(query[:, :, count:], key, value)
        elif tokens_see_patches:
            mixed = functional.scaled_dot_product_attention(query, key, value)
            context = self.context_block(context, mixed[:, :, :count], context_parts)
            mixed = mixed[:, :, count:]
        else:
            own_query, own_key, own_value = of_context
            alone = functional.scaled_dot_product_attention(own_query, own_key, own_value)
            context = self.context_block(context, alone, context_parts)
            mixed = functional.scaled_dot_product_attention(query[:, :, count:], key, value)
        return context, self.x_block(x, mixed, x_parts)


class MMDiT(nn.Module):
    """From quantised tokens, and noisy latents if it is no renderer, to a velocity or to the latents.

    Args:
        size: Sizes.
    """

    pos_embed: Tensor
    context_pos_embed: Tensor
    places: Tensor

    def __init__(self, size: MMDiTSize) -> None:
        super().__init__()
        self.size = size
        width = size.width
        if size.renderer:
            self.positional_embedding = nn.Parameter(torch.randn(size.grid**2, width) / width**0.5)
            self.mask_token = nn.Parameter(torch.randn(1, 1, width) / width**0.5)
        else:
            self.x_embedder = nn.Conv2d(size.channels, width, PATCH, stride=PATCH)
        self.register_buffer("pos_embed", torch.zeros(1, size.pos_embed_max_size**2, width))
        self.register_buffer("context_pos_embed", _sines(token_positions(size.tokens), width).unsqueeze(0))
        self.register_buffer("places", token_positions(size.tokens), persistent=False)
        self.t_embedder = TimestepEmbedder(width)
        self.y_embedder = TimestepEmbedder(width, size.code_dim)  # in the checkpoint, without use (class labels' place)
        self.context_embedder = nn.Linear(size.code_dim, width)
        self.joint_blocks = nn.ModuleList(JointBlock(width, last=i == size.depth - 1) for i in range(size.depth))
        self.final_layer = FinalLayer(width, PATCH**2 * size.channels)

    def velocity(self, noisy: Tensor, times: Tensor, tokens: Tensor) -> Tensor:
        """Noise minus latents, `(B, C, 2g, 2g)`, of noisy latents of that shape.

        Args:
            noisy: Latents and noise, mixed.
            times: `(B,)`, from 0 (latents) to 1000 (noise).
            tokens: The quantised tokens `(B, k, code_dim)` that are shown at that time, the first k of them. The
                release masks the others as keys everywhere, which comes to the same as leaving them out.
        """
        x = self.x_embedder(noisy).flatten(2).transpose(1, 2)
        return self._run(x + self._patch_positions(), times, tokens, tokens_see_patches=True)

    def render(self, tokens: Tensor) -> Tensor:
        """Latents `(B, C, 2g, 2g)` of all quantised tokens `(B, K, code_dim)` in one pass, without noise."""
        x = (self.mask_token + self.positional_embedding).expand(len(tokens), -1, -1)
        times = torch.full((len(tokens),), 1000.0, dtype=tokens.dtype, device=tokens.device)
        return self._run(x, times, tokens, tokens_see_patches=False)

    def _run(self, x: Tensor, times: Tensor, tokens: Tensor, *, tokens_see_patches: bool) -> Tensor:
        time, count = self.t_embedder(times), tokens.shape[1]
        context = self.context_embedder(tokens) + self.context_pos_embed[:, :count]
        for block in self.joint_blocks:
            context, x = block(context, x, time, self.places[:count], tokens_see_patches=tokens_see_patches)
        return unpatchify(self.final_layer(x, time), PATCH, self.size.grid)

    def _patch_positions(self) -> Tensor:
        """The middle of the table, `(1, g*g, D)`."""
        side, grid = self.size.pos_embed_max_size, self.size.grid
        start = (side - grid) // 2
        table: Tensor = self.pos_embed.unflatten(1, (side, side))
        return table[:, start : start + grid, start : start + grid].flatten(1, 2)


def _sines(positions: Tensor, width: int) -> Tensor:
    """Sines, then cosines, of positions at frequencies from 1 to almost 1 / 10000: `(L, width)`, float32."""
    places = np.arange(width // 2) / (width / 2)
    angles = positions.double().unsqueeze(1) * torch.tensor(10_000.0**-places, dtype=torch.float64)
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()
