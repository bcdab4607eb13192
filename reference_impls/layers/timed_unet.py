"""The U-Net of DALL-E 3's consistency decoder: a picture, a time and latents to a picture.

DiTo (arXiv 2501.18593, section 4) takes its decoder from there.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.precision import at_least_float32

__all__ = ["TimedUNet"]

Resample: TypeAlias = Literal["down", "up"]

BLOCKS = 3
"""Residual blocks per level on the way down; one more on the way up, for every level's own start."""


class TimeEmbedding(nn.Module):
    """Cosines, then sines, of times, at frequencies from 1 to just 1 / 10000; then linear, SiLU, linear.

    Args:
        features: How many cosines and sines; even.
        width: Of what comes out.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.features = features
        self.f_1 = nn.Linear(features, width)
        self.f_2 = nn.Linear(width, width)

    def forward(self, times: Tensor) -> Tensor:
        """`(B,)` to `(B, width)`. The frequencies are float32 numbers, whatever is computed with them."""
        half = self.features // 2
        places = torch.arange(half, dtype=torch.float32, device=times.device) / max(1, half - 1)
        angles = at_least_float32(times).unsqueeze(1) * (1.0 / 10_000.0) ** places
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        out: Tensor = self.f_2(functional.silu(self.f_1(waves.to(self.f_1.weight.dtype))))
        return out


class TimedBlock(nn.Module):
    """Two convolutions beside the input; the time scales and shifts what is between them.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        time_width: Channels of the time's embedding.
        resample: Halve (mean of 2x2 pixels) or double (repeat them) the sides before the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, time_width: int, resample: Resample | None = None) -> None:
        super().__init__()
        self.resample = resample
        self.f_t = nn.Linear(time_width, 2 * outputs)
        self.gn_1 = nn.GroupNorm(32, inputs)
        self.f_1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.gn_2 = nn.GroupNorm(32, outputs)
        self.f_2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.f_s = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """`(B, inputs, H, W)` and embedded times `(B, time_width)` to `(B, outputs, H', W')`."""
        scale, shift = self.f_t(functional.silu(time))[:, :, None, None].chunk(2, dim=1)
        hidden = self.gn_2(self.f_1(self._resized(functional.silu(self.gn_1(x)))))
        hidden = self.f_2(functional.silu(hidden * (1.0 + scale) + shift))
        beside = self._resized(x)
        out: Tensor = hidden + (beside if self.f_s is None else self.f_s(beside))
        return out

    def _resized(self, x: Tensor) -> Tensor:
        if self.resample is None:
            return x
        if self.resample == "down":
            return functional.avg_pool2d(x, 2)
        return functional.interpolate(x, scale_factor=2.0, mode="nearest")


class TimedUNet(nn.Module):
    """Everything that the way down gives is put beside what the way up has, last in, first out.

    Args:
        inputs: Channels that come in: the picture's and the latents'.
        outputs: Channels that come out.
        widths: Channels of each level, finest first, multiples of 32.
        time_features: Sinusoids of the time.
        time_width: Channels of the time's embedding.
    """

    def __init__(
        self, *, inputs: int, outputs: int, widths: Sequence[int], time_features: int, time_width: int
    ) -> None:
        super().__init__()
        self.embed_image = nn.Conv2d(inputs, widths[0], 3, padding=1)
        self.embed_time = TimeEmbedding(time_features, time_width)
        last = len(widths) - 1
        width, skips = widths[0], [widths[0]]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, own in enumerate(widths):
            blocks = [TimedBlock(width if index == 0 else own, own, time_width) for index in range(BLOCKS)]
            if level != last:
                blocks.append(TimedBlock(own, own, time_width, "down"))
            self.down.append(nn.ModuleList(blocks))
            skips += [own] * len(blocks)
            width = own
        self.mid = nn.ModuleList(TimedBlock(width, width, time_width) for _ in range(2))
        levels = []
        for level, own in reversed(list(enumerate(widths))):
            blocks = []
            for _ in range(BLOCKS + 1):
                blocks.append(TimedBlock(width + skips.pop(), own, time_width))
                width = own
            if level != 0:
                blocks.append(TimedBlock(own, own, time_width, "up"))
            levels.append(nn.ModuleList(blocks))
        self.up = nn.ModuleList(levels[::-1])  # held finest first, run coarsest first
        self.norm = nn.GroupNorm(32, widths[0])
        self.output = nn.Conv2d(widths[0], outputs, 3, padding=1)

    def forward(self, pictures: Tensor, times: Tensor, latents: Tensor) -> Tensor:
        """Pictures `(B, C, H, W)`, times `(B,)` and latents `(B, z, h, w)`, repeated to their size, to pictures."""
        spread = functional.interpolate(latents, size=pictures.shape[2:], mode="nearest")
        x = self.embed_image(torch.cat([pictures, spread], dim=1))
        time = self.embed_time(times)
        skips = [x]
        for level in self.down:
            for block in _blocks(level):
                x = block(x, time)
                skips.append(x)
        for block in _blocks(self.mid):
            x = block(x, time)
        for level in reversed(list(self.up)):
            for block in _blocks(level):
                x = block(x if block.resample else torch.cat([x, skips.pop()], dim=1), time)
        out: Tensor = self.output(functional.silu(self.norm(x)))
        return out


def _blocks(level: nn.Module) -> list[TimedBlock]:
    return [block for block in level.children() if isinstance(block, TimedBlock)]
