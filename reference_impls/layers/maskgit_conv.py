"""Convolutional encoder and decoder of MaskGIT's VQGAN (arXiv 2202.04200), under the release's key names.

The function is the PyTorch port's in bytedance/1d-tokenizer, which TiTok decodes its pixels with. MaskBit's network
(arXiv 2409.16211, section 3.1) is the same but for strided convolutions in the encoder; `MASKBIT` says what it calls
its parts.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["MASKBIT", "ConvDecoder", "ConvEncoder"]

GROUPS = 32

MASKBIT = ((r"\.mid\.res_blocks\.", ".mid."), (r"\.res_blocks\.", ".block."))
"""MaskBit's key to ours; its decoder keeps levels in running order."""


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


def _conv3x3(inputs: int, outputs: int, *, bias: bool) -> nn.Conv2d:
    # TensorFlow's "SAME" padding; at stride 1 that is one pixel on every side.
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice; no biases in the convolutions.

    Quirk of MaskGIT's release (maskgit_vqgan.py:87): where the width changes, the shortcut is taken from the second
    convolution's output, and the block's input does not reach the sum. With `true_shortcut` it is as papers have it.
    """

    def __init__(self, inputs: int, outputs: int, *, true_shortcut: bool = False) -> None:
        super().__init__()
        self.true_shortcut = true_shortcut
        self.norm1 = _norm(inputs)
        self.conv1 = _conv3x3(inputs, outputs, bias=False)
        self.norm2 = _norm(outputs)
        self.conv2 = _conv3x3(outputs, outputs, bias=False)
        source = inputs if true_shortcut else outputs
        self.nin_shortcut = nn.Conv2d(source, outputs, 1, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, H, W)` to `(B, outputs, H, W)`."""
        hidden: Tensor = self.conv1(functional.silu(self.norm1(x)))
        hidden = self.conv2(functional.silu(self.norm2(hidden)))
        if self.nin_shortcut is None:
            return x + hidden
        shortcut: Tensor = self.nin_shortcut(x if self.true_shortcut else hidden)
        return shortcut + hidden


class DownLevel(nn.Module):
    """Residual blocks, then 2x2 average pooling or a strided convolution."""

    def __init__(self, inputs: int, outputs: int, blocks: int, *, resample: bool, strided: bool = False) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * blocks
        self.block = nn.Sequential(*(ResidualBlock(a, b) for a, b in pairwise(widths)))
        self.resample = resample
        self.down_conv = nn.Conv2d(outputs, outputs, 3, stride=2) if resample and strided else None

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, H, W)` to `(B, outputs, H/2, W/2)`, or the same size if it does not resample."""
        hidden: Tensor = self.block(x)
        if not self.resample:
            return hidden
        if self.down_conv is None:
            return functional.avg_pool2d(hidden, 2)
        # "SAME" at stride 2: one pixel at the end, and where the size is odd, one at the beginning too.
        height, width = hidden.shape[2:]
        out: Tensor = self.down_conv(functional.pad(hidden, (width % 2, 1, height % 2, 1)))
        return out


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
        mid_blocks: Residual blocks behind the last level.
        strided: Halve by strided convolutions, and not by average pooling.
    """

    def __init__(
        self,
        hidden_channels: int,
        channel_mult: Sequence[int],
        num_res_blocks: int,
        z_channels: int,
        *,
        mid_blocks: int = 2,
        strided: bool = False,
    ) -> None:
        super().__init__()
        widths = [hidden_channels, *(hidden_channels * factor for factor in channel_mult)]
        last = len(channel_mult) - 1
        self.conv_in = _conv3x3(3, hidden_channels, bias=False)
        self.down = nn.Sequential(
            *(
                DownLevel(widths[i], widths[i + 1], num_res_blocks, resample=i != last, strided=strided)
                for i in range(last + 1)
            )
        )
        self.mid = nn.Sequential(*(ResidualBlock(widths[-1], widths[-1]) for _ in range(mid_blocks)))
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], z_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 3, H, W)` in [0, 1] to latents `(B, z_channels, h, w)`."""
        hidden = self.mid(self.down(self.conv_in(images)))
        latents: Tensor = self.conv_out(functional.silu(self.norm_out(hidden)))
        return latents


class ConvDecoder(nn.Module):
    """A grid of latents to images; `ConvEncoder` explains the other arguments.

    Args:
        running_order: Whether `up` holds the coarsest level first; MaskGIT's holds the finest first and runs backwards
            (maskgit_vqgan.py:219-237).
    """

    def __init__(
        self,
        hidden_channels: int,
        channel_mult: Sequence[int],
        num_res_blocks: int,
        z_channels: int,
        *,
        mid_blocks: int = 2,
        running_order: bool = False,
    ) -> None:
        super().__init__()
        self.running_order = running_order
        outputs = [hidden_channels * factor for factor in channel_mult]
        inputs = [*outputs[1:], outputs[-1]]
        self.conv_in = _conv3x3(z_channels, outputs[-1], bias=True)
        self.mid = nn.Sequential(*(ResidualBlock(outputs[-1], outputs[-1]) for _ in range(mid_blocks)))
        levels = [UpLevel(inputs[i], outputs[i], num_res_blocks, resample=i != 0) for i in range(len(outputs))]
        self.up = nn.ModuleList(levels[::-1] if running_order else levels)
        self.norm_out = _norm(outputs[0])
        self.conv_out = _conv3x3(outputs[0], 3, bias=True)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents `(B, z_channels, h, w)` to images `(B, 3, H, W)`, not clamped."""
        hidden = self.mid(self.conv_in(latents))
        for level in self.up if self.running_order else reversed(self.up):
            hidden = level(hidden)
        images: Tensor = self.conv_out(functional.silu(self.norm_out(hidden)))
        return images
