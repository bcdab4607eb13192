"""Convolutional encoder and decoder of MaskGIT's VQGAN (arXiv 2202.04200), under the release's key names.

The function is the PyTorch port's in bytedance/1d-tokenizer, which TiTok decodes its pixels with.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ConvDecoder", "ConvEncoder"]

GROUPS = 32


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


def _conv3x3(inputs: int, outputs: int, *, bias: bool) -> nn.Conv2d:
    # TensorFlow's "SAME" padding; at stride 1 that is one pixel on every side.
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice; no biases in the convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = _norm(inputs)
        self.conv1 = _conv3x3(inputs, outputs, bias=False)
        self.norm2 = _norm(outputs)
        self.conv2 = _conv3x3(outputs, outputs, bias=False)
        self.nin_shortcut = nn.Conv2d(outputs, outputs, 1, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, H, W)` to `(B, outputs, H, W)`."""
        hidden: Tensor = self.conv1(functional.silu(self.norm1(x)))
        hidden = self.conv2(functional.silu(self.norm2(hidden)))
        # Quirk of the release (maskgit_vqgan.py:87): where the width changes, the shortcut is taken from
        # conv2's output, and the block's input does not reach the sum.
        shortcut: Tensor = x if self.nin_shortcut is None else self.nin_shortcut(hidden)
        return shortcut + hidden


class DownLevel(nn.Module):
    """Residual blocks, then 2x2 average pooling."""

    def __init__(self, inputs: int, outputs: int, blocks: int, *, resample: bool) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * blocks
        self.block = nn.Sequential(*(ResidualBlock(a, b) for a, b in pairwise(widths)))
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, H, W)` to `(B, outputs, H/2, W/2)`, or the same size if it does not resample."""
        hidden: Tensor = self.block(x)
        return functional.avg_pool2d(hidden, 2) if self.resample else hidden


class UpLevel(nn.Module):
    """Residual blocks, then nearest-neighbour doubling and a convolution."""

    def __init__(self, inputs: int, outputs: int, blocks: int, *, resample: bool) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * blocks
        self.block = nn.Sequential(*(ResidualBlock(a, b) for a, b in pairwise(widths)))
        self.upsample_conv = _conv3x3(outputs, outputs, bias=True) if resample else None

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, H, W)` to `(B, outputs, 2H, 2W)`, or the same size if it does not resample."""
        x = self.block(x)
        if self.upsample_conv is not None:
            x = self.upsample_conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x


class ConvEncoder(nn.Module):
    """Images to a grid of latents, 2 ** (levels - 1) times smaller.

    Args:
        hidden_channels: Width that `channel_mult` multiplies; a multiple of 32, for the group norms.
        channel_mult: One factor per level, finest first.
        num_res_blocks: Residual blocks per level.
        z_channels: Channels of the latents.
    """

    def __init__(self, hidden_channels: int, channel_mult: Sequence[int], num_res_blocks: int, z_channels: int) -> None:
        super().__init__()
        widths = [hidden_channels, *(hidden_channels * factor for factor in channel_mult)]
        last = len(channel_mult) - 1
        self.conv_in = _conv3x3(3, hidden_channels, bias=False)
        self.down = nn.Sequential(
            *(DownLevel(widths[i], widths[i + 1], num_res_blocks, resample=i != last) for i in range(last + 1))
        )
        self.mid = nn.Sequential(*(ResidualBlock(widths[-1], widths[-1]) for _ in range(2)))
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], z_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 3, H, W)` in [0, 1] to latents `(B, z_channels, h, w)`."""
        hidden = self.mid(self.down(self.conv_in(images)))
        latents: Tensor = self.conv_out(functional.silu(self.norm_out(hidden)))
        return latents


class ConvDecoder(nn.Module):
    """A grid of latents to images; arguments as for `ConvEncoder`."""

    def __init__(self, hidden_channels: int, channel_mult: Sequence[int], num_res_blocks: int, z_channels: int) -> None:
        super().__init__()
        outputs = [hidden_channels * factor for factor in channel_mult]
        inputs = [*outputs[1:], outputs[-1]]
        self.conv_in = _conv3x3(z_channels, outputs[-1], bias=True)
        self.mid = nn.Sequential(*(ResidualBlock(outputs[-1], outputs[-1]) for _ in range(2)))
        # Stored from the finest level up, run from the coarsest down (maskgit_vqgan.py:219-237).
        self.up = nn.ModuleList(
            UpLevel(inputs[i], outputs[i], num_res_blocks, resample=i != 0) for i in range(len(outputs))
        )
        self.norm_out = _norm(outputs[0])
        self.conv_out = _conv3x3(outputs[0], 3, bias=True)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents `(B, z_channels, h, w)` to images `(B, 3, H, W)`, not clamped."""
        hidden = self.mid(self.conv_in(latents))
        for level in reversed(self.up):
            hidden = level(hidden)
        images: Tensor = self.conv_out(functional.silu(self.norm_out(hidden)))
        return images
