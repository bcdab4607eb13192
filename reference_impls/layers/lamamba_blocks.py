"""The U-Net of LaMamba-Diff (arXiv 2408.02615, section 3): selective scans for what is far, windows for what is near.

Keys are those of the release (model/lamamba.py). Maps are `(B, H, W, C)`.
"""

from typing import NamedTuple

from timm.layers.mlp import Mlp
from torch import Tensor, nn

from reference_impls.layers.dit_blocks import modulation
from reference_impls.layers.selective_scan import SelectiveScan2d
from reference_impls.layers.swin import WindowAttention, from_windows, shift_mask, to_windows

__all__ = ["LaMambaBlock", "PatchExpanding", "Stage", "StageSize", "modulated"]


class StageSize(NamedTuple):
    """What the blocks of a stage have in common."""

    width: int
    side: int
    """Height and width of the map."""
    heads: int
    window: int
    condition: int
    """Channels of the condition."""
    states: int = 1
    ratio: float = 2.0


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """A map scaled and shifted, per image, by `(B, 1, 1, C)` each."""
    return x * (1.0 + scale) + shift


class LaMambaBlock(nn.Module):
    """A selective scan, windowed attention and an MLP, each normed, modulated and gated by the condition.

    Args:
        size: Of the stage.
        shifted: Let windows lie half a window further; a map that one window covers is not cut.
        projected: Project the condition even where it has the block's width.
    """

    def __init__(self, size: StageSize, *, shifted: bool, projected: bool) -> None:
        super().__init__()
        width, side = size.width, size.side
        covered = side <= size.window
        self.side, self.window = side, (min(side, size.window),) * 2
        self.shift = size.window // 2 if shifted and not covered else 0
        keeps = size.condition == width and not projected
        self.condition_projection = nn.Identity() if keeps else nn.Linear(size.condition, width)
        self.norm, self.norm_swin, self.norm2 = (nn.LayerNorm(width) for _ in range(3))
        self.op = SelectiveScan2d(width, side, ratio=size.ratio, states=size.states)
        self.attn = WindowAttention(width, size.heads, self.window)
        if self.shift:
            self.register_buffer("attn_mask", shift_mask((side, side), self.window, self.shift))
        self.mlp = Mlp(width, 4 * width)
        self.adaLN_modulation = modulation(width, 9)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Of maps and conditions `(B, D)` the next maps."""
        parts = self.adaLN_modulation(self.condition_projection(condition))[:, None, None].chunk(9, dim=-1)
        shift, scale, gate = parts[:3]
        x = x + gate * self.op(modulated(self.norm(x), shift, scale))
        shift, scale, gate = parts[3:6]
        x = x + gate * self.near(modulated(self.norm_swin(x), shift, scale))
        shift, scale, gate = parts[6:]
        out: Tensor = x + gate * self.mlp(modulated(self.norm2(x), shift, scale))
        return out

    def near(self, x: Tensor) -> Tensor:
        """Attention within windows."""
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        windows = self.attn(to_windows(x, self.window), self.get_buffer("attn_mask") if self.shift else None)
        out = from_windows(windows, self.window, (self.side, self.side))
        return out.roll((self.shift, self.shift), (1, 2)) if self.shift else out


class PatchExpanding(nn.Module):
    """Double a map's sides and halve its channels, or, with `factor` 1, leave them: a projection and a norm."""

    def __init__(self, width: int, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.expand = nn.Linear(width, factor * width, bias=False)
        self.norm = nn.LayerNorm(width // factor)

    def forward(self, x: Tensor) -> Tensor:
        """From `(B, H, W, C)` to `(B, f H, f W, C / f)`."""
        factor = self.factor
        cells = self.expand(x).unflatten(-1, (factor, factor, -1)).permute(0, 1, 3, 2, 4, 5)
        out: Tensor = self.norm(cells.flatten(3, 4).flatten(1, 2))
        return out


class Stage(nn.Module):
    """Blocks of one size, every other one with shifted windows; and what comes before or behind them.

    Args:
        size: Of the blocks.
        depth: How many of them.
        downsample: What halves the map behind them.
        upsample: What doubles it before them.
        projected: As `LaMambaBlock` takes it.
    """

    def __init__(
        self,
        size: StageSize,
        depth: int,
        *,
        downsample: nn.Module | None = None,
        upsample: nn.Module | None = None,
        projected: bool = False,
    ) -> None:
        super().__init__()
        self.upsample, self.downsample = upsample, downsample
        blocks = (LaMambaBlock(size, shifted=index % 2 == 1, projected=projected) for index in range(depth))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, condition: Tensor, aside: Tensor | None = None) -> Tensor:
        """Maps doubled, where the stage does, with those from the way down added, and through the blocks."""
        x = x if self.upsample is None else self.upsample(x)
        x = x if aside is None else x + aside
        for block in self.blocks:
            x = block(x, condition)
        return x

    def shrunk(self, x: Tensor) -> Tensor:
        """The stage's own output as the next stage takes it: halved, where the stage does."""
        return x if self.downsample is None else self.downsample(x)
