"""A convolutional encoder and decoder for clips that looks only back in time, so that a still is a clip of one frame.

MAGVIT-v2 (arXiv 2310.05737, section 3.2). With a kernel of one frame and no halving of time it is a network for
images.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["CausalConv3d", "CausalDecoder", "CausalEncoder", "CausalSize"]

GROUPS, EPS = 32, 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class CausalSize:
    """Sizes that encoder and decoder share."""

    ch: int
    """Width that `ch_mult` multiplies; a multiple of 32, for the group norms."""
    ch_mult: Sequence[int]
    """One factor per level, finest first."""
    num_res_blocks: int
    """Residual blocks per level, and in the middle."""
    z_channels: int
    time_kernel: int = 1
    """Frames that a convolution sees: its own and those before it."""
    time_levels: Collection[int] = ()
    """Levels, 0 the finest, behind which time is halved as well."""

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        return [self.ch * factor for factor in self.ch_mult]

    @property
    def factor(self) -> int:
        """How many pixels of a side become one latent."""
        return int(2 ** (len(self.ch_mult) - 1))

    @property
    def time_factor(self) -> int:
        """How many frames beyond the first become one latent frame."""
        return int(2 ** len(self.time_levels))


class CausalConv3d(nn.Conv3d):
    """A convolution padded with zeros: before the first frame only, and on all four sides of the frames.

    Args:
        inputs: Channels that go in.
        outputs: Channels that come out.
        size: Rows and columns of the kernel, odd.
        time: Frames of the kernel.
        stride: Steps in time and space.
    """

    def __init__(self, inputs: int, outputs: int, size: int, time: int, stride: tuple[int, int] = (1, 1)) -> None:
        padding = (0, size // 2, size // 2)
        super().__init__(inputs, outputs, (time, size, size), (stride[0], stride[1], stride[1]), padding)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, T, H, W)` to `(B, outputs, ceil(T / stride), H / stride, W / stride)`."""
        if x.shape[2] == 1:  # All frames before it are zero: only the kernel's last one is at work.
            kernel = self.weight[:, :, -1]
            frame = functional.conv2d(x.squeeze(2), kernel, self.bias, self.stride[1:], (self.padding[1],) * 2)  # type: ignore[arg-type]
            return frame.unsqueeze(2)
        return super().forward(functional.pad(x, (0, 0, 0, 0, self.kernel_size[0] - 1, 0)))


class FrameNorm(nn.GroupNorm):
    """A group norm over each frame on its own: statistics over time would let a frame see later ones."""

    def __init__(self, channels: int, *, affine: bool = True) -> None:
        super().__init__(GROUPS, channels, eps=EPS, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, T, H, W)` to the same shape."""
        frames = x.transpose(1, 2)
        return super().forward(frames.flatten(0, 1)).view_as(frames).transpose(1, 2)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, beside the input."""

    def __init__(self, inputs: int, outputs: int, time: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = FrameNorm(inputs), CausalConv3d(inputs, outputs, 3, time)
        self.norm2, self.conv2 = FrameNorm(outputs), CausalConv3d(outputs, outputs, 3, time)
        self.shortcut = CausalConv3d(inputs, outputs, 1, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, T, H, W)` to `(B, outputs, T, H, W)`."""
        hidden = self.conv1(functional.silu(self.norm1(x)))
        out: Tensor = self.shortcut(x) + self.conv2(functional.silu(self.norm2(hidden)))
        return out


def _blocks(widths: Sequence[int], time: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(a, b, time) for a, b in pairwise(widths)))


class Upsample(nn.Module):
    """A convolution to more channels, which become rows, columns and, where time doubles, frames."""

    def __init__(self, channels: int, time: int, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.conv = CausalConv3d(channels, frames * 4 * channels, 3, time)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, T, H, W)` to `(B, C, T', 2H, 2W)`: T' is T, or 2T - 1, the first frame of the first pair dropped."""
        parts = self.conv(x).unflatten(1, (self.frames, 2, 2, x.shape[1]))
        # (B, frame, row, column, C, T, H, W) to (B, C, T, frame, H, row, W, column).
        grown: Tensor = parts.permute(0, 4, 5, 1, 6, 2, 7, 3).flatten(6, 7).flatten(4, 5).flatten(2, 3)
        return grown[:, :, self.frames - 1 :]


class AdaptiveNorm(nn.Module):
    """A norm whose scale and shift are read from the latents: their mean over each frame, as StyleGAN's style."""

    def __init__(self, z_channels: int, channels: int) -> None:
        super().__init__()
        self.norm = FrameNorm(channels, affine=False)
        self.style = nn.Linear(z_channels, 2 * channels)

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        """`(B, C, T, H, W)` to the same shape, by latents `(B, z_channels, t, h, w)` of all its frames."""
        styles = self.style(latents.mean((3, 4)).transpose(1, 2)).transpose(1, 2)
        times = (x.shape[2] - 1) // max(latents.shape[2] - 1, 1)
        if times > 1:  # The first latent frame is one frame, any other as many as time has doubled to.
            styles = styles.repeat_interleave(times, dim=2)[:, :, times - 1 :]
        scale, shift = styles[..., None, None].chunk(2, dim=1)
        out: Tensor = self.norm(x) * (1.0 + scale) + shift
        return out


class CausalEncoder(nn.Module):
    """Clips to latents: `size.factor` times smaller, and `1 + size.time_factor * t` frames to `1 + t`."""

    def __init__(self, size: CausalSize) -> None:
        super().__init__()
        time, widths = size.time_kernel, size.widths
        self.conv_in = CausalConv3d(3, size.ch, 3, time)
        inputs = [size.ch, *widths[:-1]]
        self.levels = nn.ModuleList(
            _blocks([before] + [after] * size.num_res_blocks, time)
            for before, after in zip(inputs, widths, strict=True)
        )
        self.downsamples = nn.ModuleList(
            CausalConv3d(width, width, 3, time, (2 if index in size.time_levels else 1, 2))
            for index, width in enumerate(widths[:-1])
        )
        self.mid = _blocks([widths[-1]] * (size.num_res_blocks + 1), time)
        self.norm_out = FrameNorm(widths[-1])
        self.conv_out = CausalConv3d(widths[-1], size.z_channels, 1, 1)

    def forward(self, clips: Tensor) -> Tensor:
        """Clips `(B, 3, T, H, W)` to latents `(B, z_channels, t, h, w)`."""
        hidden = self.levels[0](self.conv_in(clips))
        for downsample, level in zip(self.downsamples, self.levels[1:], strict=True):
            hidden = level(downsample(hidden))
        out: Tensor = self.conv_out(functional.silu(self.norm_out(self.mid(hidden))))
        return out


class CausalDecoder(nn.Module):
    """Quantised latents to clips, coarsest level first; an adaptive norm stands before the blocks of each."""

    def __init__(self, size: CausalSize) -> None:
        super().__init__()
        time, outputs = size.time_kernel, size.widths[::-1]
        inputs = [outputs[0], *outputs[:-1]]
        self.conv_in = CausalConv3d(size.z_channels, outputs[0], 3, time)
        self.mid = _blocks([outputs[0]] * (size.num_res_blocks + 1), time)
        self.adaptive = nn.ModuleList(AdaptiveNorm(size.z_channels, width) for width in inputs)
        self.levels = nn.ModuleList(
            _blocks([before] + [after] * size.num_res_blocks, time)
            for before, after in zip(inputs, outputs, strict=True)
        )
        last = len(outputs) - 2
        self.upsamples = nn.ModuleList(
            Upsample(width, time, 2 if last - index in size.time_levels else 1)
            for index, width in enumerate(outputs[:-1])
        )
        self.norm_out = FrameNorm(outputs[-1])
        self.conv_out = CausalConv3d(outputs[-1], 3, 3, time)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents `(B, z_channels, t, h, w)` to clips `(B, 3, T, H, W)`, not clamped."""
        hidden = self.mid(self.conv_in(latents))
        upsamples: list[Any] = [*self.upsamples, None]
        for norm, level, upsample in zip(self.adaptive, self.levels, upsamples, strict=True):
            hidden = level(norm(hidden, latents))
            if upsample is not None:
                hidden = upsample(hidden)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(hidden)))
        return out
