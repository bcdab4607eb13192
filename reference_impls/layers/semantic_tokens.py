"""Semantic tokens of windows (Chang et al., "Making Vision Transformers Efficient from A Token Sparsification View").

All tokens are `(B, N, C)`, those of a grid row by row; a grid is a pair of its rows and columns.
"""

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d, scaled_dot_product_attention

from reference_impls.layers.swin import from_windows, relative_index, to_windows

__all__ = ["WINDOW", "GroupBlock", "LookBlock", "PoolBlock", "neighbourhoods", "semantic_grid"]

WINDOW, SEMANTIC, NEIGHBOURHOOD = 7, 3, 10
"""Sides of a window, of its grid of semantic tokens, and of what those look at, in tokens."""
SCALE = 1e-5
"""Layer scale before training."""


def semantic_grid(grid: tuple[int, int]) -> tuple[int, int]:
    """The grid of the semantic tokens of all windows of a grid of tokens."""
    return grid[0] // WINDOW * SEMANTIC, grid[1] // WINDOW * SEMANTIC


class CrossAttention(nn.Module):
    """Attention of some tokens over others, with a bias for every offset in a window where one is given."""

    def __init__(self, width: int, heads: int, window: tuple[int, int] | None) -> None:
        super().__init__()
        self.heads = heads
        self.placed = window is not None
        if window is not None:
            offsets = (2 * window[0] - 1) * (2 * window[1] - 1)
            table = nn.init.trunc_normal_(torch.empty(offsets, heads), std=0.02)
            self.relative_position_bias_table = nn.Parameter(table)
            self.register_buffer("relative_position_index", relative_index(window))
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """For queries of `x` `(B, N, C)` and keys of `y` `(B, M, C)` the output `(B, N, C)`."""
        q = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(y).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        bias = None
        if self.placed:
            bias = self.relative_position_bias_table[self.get_buffer("relative_position_index")]
            bias = bias.permute(2, 0, 1)[None].to(q.dtype)
        out: Tensor = self.proj(scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2))
        return out


class LookBlock(nn.Module):
    """A block whose tokens look at others: one norm for both sides, layer scale, an MLP."""

    def __init__(self, width: int, heads: int, window: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.layer_scale_1 = nn.Parameter(torch.full((width,), SCALE))
        self.layer_scale_2 = nn.Parameter(torch.full((width,), SCALE))
        self.norm1 = nn.LayerNorm(width)
        self.attn = CrossAttention(width, heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width)

    def looked(self, x: Tensor, y: Tensor) -> Tensor:
        """What attention over `y` `(B, M, C)` gives the tokens `x` `(B, N, C)`, scaled."""
        out: Tensor = self.layer_scale_1 * self.attn(self.norm1(x), self.norm1(y))
        return out

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second half of the block."""
        out: Tensor = x + self.layer_scale_2 * self.mlp(self.norm2(x))
        return out

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The tokens `x` after a look at `y`."""
        return self.feed_forward(x + self.looked(x, y))


class GroupBlock(LookBlock):
    """A block among the semantic tokens of each window; `grid` is that of all of them."""

    def __init__(self, width: int, heads: int, grid: tuple[int, int], *, relative_pos: bool) -> None:
        super().__init__(width, heads, (SEMANTIC, SEMANTIC) if relative_pos else None)
        self.grid = grid

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Of the semantic tokens `x` the next; `y` is `x`."""
        del y
        window = (SEMANTIC, SEMANTIC)
        groups = to_windows(x.unflatten(1, self.grid), window)
        out = self.looked(groups.flatten(0, 1), groups.flatten(0, 1)).view_as(groups)
        return self.feed_forward(x + from_windows(out, window, self.grid).flatten(1, 2))


class ConvPosition(nn.Module):
    """A depthwise convolution and its residual, of the semantic tokens of one window."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width))

    def forward(self, x: Tensor) -> Tensor:
        """Of maps `(B, C, 3, 3)` the next."""
        out: Tensor = x + self.proj(x)
        return out


class PoolBlock(LookBlock):
    """Makes semantic tokens: the maxima of each window's parts look at themselves and around their window.

    `shortcut` keeps the maxima as a residual. Without it, and without `use_conv_pos`, it is as in the released runs.
    """

    def __init__(self, width: int, heads: int, grid: tuple[int, int], *, use_conv_pos: bool, shortcut: bool) -> None:
        super().__init__(width, heads)
        self.conv_pos = ConvPosition(width) if use_conv_pos else nn.Identity()
        self.grid, self.shortcut = grid, shortcut

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """From all tokens `x` of `grid` to the semantic ones, in their own grid; `y` is `x`."""
        del y
        image = x.unflatten(1, self.grid)
        windows = to_windows(image, (WINDOW, WINDOW))
        maps = windows.flatten(0, 1).transpose(1, 2).unflatten(2, (WINDOW, WINDOW))
        pooled = self.conv_pos(adaptive_max_pool2d(maps, SEMANTIC)).flatten(2).transpose(1, 2)
        out = self.looked(pooled, torch.cat((pooled, neighbourhoods(image).flatten(0, 1)), dim=1))
        out = (pooled + out if self.shortcut else out).unflatten(0, windows.shape[:2])
        return self.feed_forward(from_windows(out, (SEMANTIC, SEMANTIC), semantic_grid(self.grid)).flatten(1, 2))


def neighbourhoods(image: Tensor) -> Tensor:
    """What the semantic tokens of every window look at: `(B, windows, 100, C)` of `(B, H, W, C)`.

    A neighbourhood is 10 x 10 tokens around a window of 7 x 7, and lies within the map. The release knows maps of
    14 x 14 alone, where the map's edges leave no choice; in larger ones it begins one token before its window.
    """
    rows, columns = (_around(side, image.device) for side in image.shape[1:3])
    found = image[:, rows][:, :, :, columns].transpose(2, 3)
    return found.flatten(3, 4).flatten(1, 2)


def _around(side: int, device: torch.device) -> Tensor:
    """The places along one side that each window's neighbourhood has, `(windows, 10)`; all of a shorter side."""
    reach = min(side, NEIGHBOURHOOD)
    starts = (torch.arange(0, side, WINDOW, device=device) - 1).clamp(0, side - reach)
    return starts[:, None] + torch.arange(reach, device=device)
