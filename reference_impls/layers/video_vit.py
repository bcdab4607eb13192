"""Vision transformers on clips: patches of space and time, their positions, and queries beside them.

LARP's (arXiv 2410.21264, section 3.1). Tokens of a clip are in the order of time, then rows, then columns.
"""

from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

__all__ = ["JointTransformer", "LinePositions", "PatchHead", "VideoPatches", "VideoPositions", "line_sincos"]

EPS = 1e-5
"""timm's default when LARP was released; later releases of timm have 1e-6, and LARP pins none."""


def line_sincos(width: int, length: int) -> Tensor:
    """Fixed positions of a line `(length, width)`, float32: sines, then cosines, at `width / 2` frequencies.

    They fall from 1 to almost 1 / 10000 (Transformer, arXiv 1706.03762, section 3.5). `width` is even.
    """
    return _line(width, length).float()


def _line(width: int, length: int) -> Tensor:
    """The same in float64."""
    half = width // 2
    frequencies = 10000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _space_time(width: int, steps: int, side: int) -> Tensor:
    """A fixed vector for every patch, `(steps * side * side, width)`, float32.

    Half of the channels tell the column and half the row; what tells the step is added to all of them.
    """
    cells = _line(width // 2, side)
    shape = (side, side, width // 2)
    space = torch.cat([cells.expand(shape), cells[:, None].expand(shape)], dim=2).flatten(0, 1)
    # Summed before it is rounded, as in the release.
    return (space + _line(width, steps)[:, None]).flatten(0, 1).float()


class VideoPatches(nn.Module):
    """Clips to tokens.

    Args:
        width: Channels of the tokens.
        patch_size: Side of a patch, in pixels.
        frames: Frames of a patch; with one, the projection is two-dimensional.
    """

    def __init__(self, width: int, patch_size: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.proj: nn.Conv2d | nn.Conv3d
        if frames == 1:
            self.proj = nn.Conv2d(3, width, patch_size, stride=patch_size)
        else:
            size = (frames, patch_size, patch_size)
            self.proj = nn.Conv3d(3, width, size, stride=size)

    def forward(self, videos: Tensor) -> Tensor:
        """`(B, 3, T, H, W)` to `(B, N, width)`."""
        patches: Tensor
        if self.frames > 1:
            patches = self.proj(videos)
            return patches.flatten(2).transpose(1, 2)
        patches = self.proj(videos.transpose(1, 2).flatten(0, 1)).flatten(2).transpose(1, 2)
        return patches.reshape(len(videos), -1, patches.shape[2])


class VideoPositions(nn.Module):
    """A vector for every patch of a clip.

    Args:
        width: Channels.
        steps: Patches in time.
        side: Patches of a side.
        learned: Learn one vector per row, column and step, instead of keeping the fixed table.
        typed: Learn a vector that is added everywhere, and tells these tokens from others.
    """

    def __init__(self, width: int, *, steps: int, side: int, learned: bool, typed: bool) -> None:
        super().__init__()
        if learned:
            line = line_sincos(width, side)
            self.h = nn.Parameter(line.clone().reshape(1, 1, side, 1, width))
            self.w = nn.Parameter(line.reshape(1, 1, 1, side, width))
            self.t = nn.Parameter(line_sincos(width, steps).reshape(1, steps, 1, 1, width))
        else:
            self.table: Tensor
            self.register_buffer("table", _space_time(width, steps, side)[None])  # fixed, but in the checkpoint
        self.learned = learned
        self.kind = _kind(width) if typed else None

    def forward(self, count: int) -> Tensor:
        """The first `count` vectors, `(1, count, width)`."""
        table = (self.h + self.w + self.t).flatten(1, 3) if self.learned else self.table
        table = table[:, :count]
        return table if self.kind is None else table + self.kind


class LinePositions(nn.Module):
    """A vector for every latent token.

    Args:
        width: Channels.
        length: Number of tokens.
        learned: Learn them, instead of keeping the fixed table.
        typed: Learn a vector that is added everywhere, and tells these tokens from others.
        flat: Keep the table as `(length, width)`, without a first dimension.
    """

    def __init__(self, width: int, length: int, *, learned: bool, typed: bool, flat: bool = False) -> None:
        super().__init__()
        self.table: Tensor
        table = 0.02 * torch.randn(length, width) if learned else line_sincos(width, length)
        table = table if flat else table[None]
        if learned:
            self.table = nn.Parameter(table)
        else:
            self.register_buffer("table", table)  # fixed, but in the checkpoint
        self.kind = _kind(width) if typed else None

    def forward(self) -> Tensor:
        """All of them, `(1, length, width)`."""
        table = self.table.reshape(1, -1, self.table.shape[-1])
        return table if self.kind is None else table + self.kind


def _kind(width: int) -> nn.Parameter:
    return nn.Parameter(0.02 * torch.randn(1, 1, width))


class JointTransformer(nn.Module):
    """Self-attention over a context and what is asked of it; only the latter comes out.

    Args:
        width: Channels of the tokens.
        depth: Number of blocks.
        heads: Attention heads.
    """

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        norm: Any = partial(nn.LayerNorm, eps=EPS)
        self.blocks = nn.ModuleList(Block(width, heads, qkv_bias=False, norm_layer=norm) for _ in range(depth))

    def forward(self, context: Tensor, queries: Tensor) -> Tensor:
        """`(B, N, width)` and `(B, M, width)` to `(B, M, width)`."""
        x = torch.cat([context, queries], dim=1)
        for block in self.blocks:
            x = block(x)
        return x[:, context.shape[1] :]


class PatchHead(nn.Module):
    """Tokens to the pixels of their patches.

    Args:
        width: Channels of the tokens.
        patch_size: Side of a patch, in pixels.
        frames: Frames of a patch.
        side: Patches of a side.
    """

    def __init__(self, width: int, *, patch_size: int, frames: int, side: int) -> None:
        super().__init__()
        self.patch = (frames, patch_size, patch_size, 3)
        self.side = side
        self.norm_final = nn.LayerNorm(width, eps=1e-6)
        self.linear = nn.Linear(width, frames * patch_size**2 * 3)

    def forward(self, tokens: Tensor) -> Tensor:
        """`(B, N, width)` to clips `(B, 3, T, H, W)`."""
        values: Tensor = self.linear(self.norm_final(tokens))
        steps = tokens.shape[1] // self.side**2
        patches = values.reshape(len(values), steps, self.side, self.side, *self.patch)
        ordered = patches.permute(0, 7, 1, 4, 2, 5, 3, 6)
        return ordered.flatten(6, 7).flatten(4, 5).flatten(2, 3)
