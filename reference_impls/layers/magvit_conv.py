"""The convolutional encoder and decoder of Open-MAGVIT2 (arXiv 2409.04410, section 3.1); it has no attention."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.maskgit_conv import ResidualBlock

__all__ = ["MagvitDecoder", "MagvitEncoder", "MagvitSize"]

GROUPS, EPS = 32, 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class MagvitSize:
    """Sizes that encoder and decoder share."""

    ch: int
    """Width that `ch_mult` multiplies; a multiple of 32, for the group norms."""
    ch_mult: Sequence[int]
    """One factor per level, finest first."""
    num_res_blocks: int
    """Residual blocks per level, and in the middle."""
    z_channels: int

    @property
    def factor(self) -> int:
        """How many pixels of a side become one latent."""
        return int(2 ** (len(self.ch_mult) - 1))


def _blocks(widths: Sequence[int]) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(a, b, true_shortcut=True) for a, b in pairwise(widths)))


class Level(nn.Module):
    """Residual blocks of one resolution."""

    downsample: nn.Conv2d
    """What leads on to the next level of an encoder."""
    upsample: "Upsample"
    """What leads on to the next level of a decoder."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.block = _blocks([inputs] + [outputs] * blocks)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, H, W)` to `(B, outputs, H, W)`."""
        out: Tensor = self.block(x)
        return out


class Upsample(nn.Module):
    """A convolution to four times the channels, which become two rows and two columns."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, C, 2H, 2W)`."""
        batch, channels, height, width = x.shape
        # A channel index reads (row, column, C), where torch's pixel_shuffle reads (C, row, column).
        parts = self.conv1(x).reshape(batch, 2, 2, channels, height, width)
        out: Tensor = parts.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels, 2 * height, 2 * width)
        return out


class AdaptiveGroupNorm(nn.Module):
    """A group norm whose scale and shift are read from statistics of the quantised latents."""

    def __init__(self, z_channels: int, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Linear(z_channels, channels)
        self.beta = nn.Linear(z_channels, channels)

    def forward(self, x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same shape, by means and deviations `(B, z_channels)` of the latents' channels."""
        scale: Tensor = self.gamma(std)
        shift: Tensor = self.beta(mean)
        return functional.group_norm(x, GROUPS, eps=EPS) * scale[..., None, None] + shift[..., None, None]


def _statistics(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Means and deviations `(B, C)` over the positions of latents `(B, C, h, w)`; the variance is the unbiased one."""
    rows = latents.flatten(2)
    mean = rows.mean(2)
    variance = (rows - mean.unsqueeze(2)).square().sum(2) / max(rows.shape[2] - 1, 1)
    return mean, (variance + EPS).sqrt()


class MagvitEncoder(nn.Module):
    """Images to a grid of latents, `size.factor` times smaller."""

    def __init__(self, size: MagvitSize) -> None:
        super().__init__()
        widths = [size.ch, *(size.ch * factor for factor in size.ch_mult)]
        self.conv_in = nn.Conv2d(3, size.ch, 3, padding=1, bias=False)
        self.down = nn.ModuleList(Level(a, b, size.num_res_blocks) for a, b in pairwise(widths))
        for level, width in zip(self.down[:-1], widths[1:-1], strict=True):
            level.downsample = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.mid = _blocks([widths[-1]] * (size.num_res_blocks + 1))
        self.norm_out = nn.GroupNorm(GROUPS, widths[-1], eps=EPS)
        self.conv_out = nn.Conv2d(widths[-1], size.z_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 3, H, W)` to latents `(B, z_channels, h, w)`."""
        hidden = self.conv_in(images)
        for level in cast("Iterable[Level]", self.down):
            hidden = level(hidden)
            if level is not self.down[-1]:
                hidden = level.downsample(hidden)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(self.mid(hidden))))
        return out


class MagvitDecoder(nn.Module):
    """A grid of quantised latents to images; levels are stored from the finest up, and run from the coarsest down."""

    def __init__(self, size: MagvitSize) -> None:
        super().__init__()
        widths = [size.ch * factor for factor in size.ch_mult]
        inputs = [*widths[1:], widths[-1]]
        self.conv_in = nn.Conv2d(size.z_channels, widths[-1], 3, padding=1)
        self.mid = _blocks([widths[-1]] * (size.num_res_blocks + 1))
        self.up = nn.ModuleList(Level(a, b, size.num_res_blocks) for a, b in zip(inputs, widths, strict=True))
        for level, width in zip(self.up[1:], widths[1:], strict=True):
            level.upsample = Upsample(width)
        self.adaptive = nn.ModuleList(AdaptiveGroupNorm(size.z_channels, width) for width in inputs)
        self.norm_out = nn.GroupNorm(GROUPS, widths[0], eps=EPS)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents `(B, z_channels, h, w)` to images `(B, 3, H, W)`."""
        mean, std = _statistics(latents)
        hidden = self.mid(self.conv_in(latents))
        levels = cast("Iterable[Level]", reversed(self.up))
        for level, norm in zip(levels, reversed(self.adaptive), strict=True):
            hidden = level(norm(hidden, mean, std))
            if level is not self.up[0]:
                hidden = level.upsample(hidden)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(hidden)))
        return out
