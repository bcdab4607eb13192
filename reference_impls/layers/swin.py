"""Swin's pieces (Liu et al., "Swin Transformer", ICCV 2021, sections 3.1 and 3.2): windows, blocks, merging patches.

Feature maps are `(B, H, W, C)`; a window or grid is a pair of its rows and columns.
"""

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

__all__ = [
    "PatchMerging",
    "SwinBlock",
    "WindowAttention",
    "from_windows",
    "relative_index",
    "shift_mask",
    "to_windows",
]


def to_windows(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Cut a map `(B, H, W, C)` into windows that tile it: `(B, windows, rows x columns, C)`, both row by row."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // window[0], window[0], width // window[1], window[1], channels).transpose(2, 3)
    return x.reshape(batch, (height // window[0]) * (width // window[1]), window[0] * window[1], channels)


def from_windows(x: Tensor, window: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Undo `to_windows`: the map of `grid` (height and width) that the windows were cut from."""
    batch, _, _, channels = x.shape
    x = x.reshape(batch, grid[0] // window[0], grid[1] // window[1], *window, channels).transpose(2, 3)
    return x.reshape(batch, *grid, channels)


def relative_index(window: tuple[int, int]) -> Tensor:
    """For every pair of places in a window its row in a table of (2 rows - 1) (2 columns - 1) offsets, `(N, N)`."""
    rows, columns = torch.meshgrid(torch.arange(window[0]), torch.arange(window[1]), indexing="ij")
    down = rows.flatten()[:, None] - rows.flatten() + window[0] - 1
    right = columns.flatten()[:, None] - columns.flatten() + window[1] - 1
    return down * (2 * window[1] - 1) + right


class WindowAttention(nn.Module):
    """Self-attention within windows, with a learned bias for every offset (equation 4)."""

    def __init__(self, width: int, heads: int, window: tuple[int, int]) -> None:
        super().__init__()
        self.heads = heads
        offsets = (2 * window[0] - 1) * (2 * window[1] - 1)
        self.relative_position_bias_table = nn.Parameter(nn.init.trunc_normal_(torch.empty(offsets, heads), std=0.02))
        self.register_buffer("relative_position_index", relative_index(window))
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The output of `x` `(B, windows, N, C)`; `mask` `(windows, N, N)` is added to the logits of all heads."""
        batch, windows, tokens, channels = x.shape
        split = self.qkv(x).reshape(batch * windows, tokens, 3, self.heads, channels // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.relative_position_bias_table[self.get_buffer("relative_position_index")].permute(2, 0, 1)[None]
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(batch, 1, 1, 1)
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(x.shape))
        return out


class SwinBlock(nn.Module):
    """Windowed attention and an MLP, each behind a norm (equation 3); a map that one window covers is not cut.

    The map's height and width are multiples of the window; with `shifted`, windows lie half a window further, and
    wrap around the map's edges without attending across them.
    """

    def __init__(
        self, width: int, heads: int, grid: tuple[int, int], window: int = 7, *, shifted: bool = False
    ) -> None:
        super().__init__()
        covered = min(grid) <= window
        side = min(grid) if covered else window
        self.grid, self.window = grid, (side, side)
        self.shift = side // 2 if shifted and not covered else 0
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, self.window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width)
        if self.shift:
            self.register_buffer("attn_mask", shift_mask(grid, self.window, self.shift))

    def attend(self, x: Tensor) -> Tensor:
        """`x` `(B, H, W, C)` and what attention adds to it."""
        shifts, back = (-self.shift, -self.shift), (self.shift, self.shift)
        out = self.norm1(x)
        out = out.roll(shifts, (1, 2)) if self.shift else out
        out = self.attn(to_windows(out, self.window), self.get_buffer("attn_mask") if self.shift else None)
        out = from_windows(out, self.window, self.grid)
        return x + (out.roll(back, (1, 2)) if self.shift else out)

    def forward(self, x: Tensor) -> Tensor:
        """Of maps `(B, H, W, C)` the next."""
        x = self.attend(x)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class PatchMerging(nn.Module):
    """Halve a map's sides and double its channels: every 2 x 2 patches become one (section 3.1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """From `(B, H, W, C)` to `(B, H / 2, W / 2, 2 C)`."""
        corners = [x[:, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
        out: Tensor = self.reduction(self.norm(torch.cat(corners, dim=-1)))
        return out


def shift_mask(grid: tuple[int, int], window: tuple[int, int], shift: int) -> Tensor:
    """0 between places of a shifted window that were neighbours before, -100 across the map's edges."""
    regions = [(torch.arange(side) >= side - window[0]).int() + (torch.arange(side) >= side - shift) for side in grid]
    region = to_windows((3 * regions[0][:, None] + regions[1])[None, :, :, None], window)[0, :, :, 0]
    return torch.where(region[:, None] == region[:, :, None], 0.0, -100.0)
