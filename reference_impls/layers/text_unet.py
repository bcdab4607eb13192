"""The U-Net of latent diffusion with cross-attention (arXiv 2112.10752, section 3.3) in SDXL's form, and its control.

SDXL (arXiv 2307.01952, section 2) has three levels, transformers of several blocks, and a vector beside the text.
The control is ControlNet's (arXiv 2302.05543, section 3): a copy of the contracting half that sees a picture more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.mlp import GluMlp
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.dit_blocks import TimestepEmbedder
from tokenmark.contracts import MethodError

__all__ = ["Control", "TextUNet", "UNetSize"]

GROUPS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetSize:
    """Sizes of a U-Net; SDXL's by default."""

    channels: int = 4
    """Of the latents."""
    ch: int = 320
    ch_mult: Sequence[int] = (1, 2, 4)
    """One factor per level, finest first."""
    num_res_blocks: int = 2
    """Per level of the contracting half; the expanding half has one more."""
    depths: Sequence[int] = (0, 2, 10)
    """Blocks of the transformers of each level; the middle's is as deep as the coarsest level's."""
    head_dim: int = 64
    context: int = 2048
    """Channels of the text."""
    vector: int = 2816
    """Channels of the vector that joins the time."""

    def __post_init__(self) -> None:
        if len(self.ch_mult) != len(self.depths):
            raise MethodError(f"a U-Net needs a depth per level, got {list(self.depths)} for {list(self.ch_mult)}")

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        return [self.ch * factor for factor in self.ch_mult]

    @property
    def time(self) -> int:
        """Channels of the embedded time."""
        return 4 * self.ch


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, beside the input; the time is added between them."""

    def __init__(self, inputs: int, outputs: int, time: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(GROUPS, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(time, outputs)
        self.norm2, self.conv2 = nn.GroupNorm(GROUPS, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """`(B, inputs, H, W)` and `(B, time)` to `(B, outputs, H, W)`."""
        hidden = self.conv1(functional.silu(self.norm1(x))) + self.time(functional.silu(time))[..., None, None]
        out: Tensor = self.shortcut(x) + self.conv2(functional.silu(self.norm2(hidden)))
        return out


class Attention(nn.Module):
    """Attention of tokens to a context; queries, keys and values have no bias."""

    def __init__(self, width: int, context: int, head_dim: int) -> None:
        super().__init__()
        self.heads = width // head_dim
        self.q = nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(context, width, bias=False) for _ in range(2))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """`(B, L, width)` and `(B, T, context)` to `(B, L, width)`."""
        projected = (self.q(x), self.k(context), self.v(context))
        heads = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in projected)
        mixed = functional.scaled_dot_product_attention(*heads)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class TextBlock(nn.Module):
    """Pre-norm residual block: self-attention, attention to the text, GEGLU."""

    def __init__(self, width: int, context: int, head_dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.own, self.cross = Attention(width, width, head_dim), Attention(width, context, head_dim)
        self.mlp = GluMlp(width, 8 * width, act_layer=nn.GELU)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """`(B, L, width)` and the text `(B, T, context)` to `(B, L, width)`."""
        normed = self.norm1(x)
        x = x + self.own(normed, normed)
        x = x + self.cross(self.norm2(x), context)
        out: Tensor = x + self.mlp(self.norm3(x))
        return out


class Transformer(nn.Module):
    """Blocks over all positions of a picture, beside the input."""

    def __init__(self, width: int, depth: int, context: int, head_dim: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width, eps=1e-6)
        self.proj_in, self.proj_out = nn.Linear(width, width), nn.Linear(width, width)
        self.blocks = nn.ModuleList(TextBlock(width, context, head_dim) for _ in range(depth))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """`(B, width, H, W)` and the text to the same shape."""
        tokens = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        for block in self.blocks:
            tokens = block(tokens, context)
        out: Tensor = x + self.proj_out(tokens).transpose(1, 2).reshape(x.shape)
        return out


class Step(nn.Module):
    """A residual block, and a transformer behind it where the level has any."""

    def __init__(self, size: UNetSize, inputs: int, outputs: int, depth: int) -> None:
        super().__init__()
        self.res = ResBlock(inputs, outputs, size.time)
        self.attn = Transformer(outputs, depth, size.context, size.head_dim) if depth else None

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """`(B, inputs, H, W)` to `(B, outputs, H, W)`."""
        hidden: Tensor = self.res(x, time)
        if self.attn is not None:
            hidden = self.attn(hidden, context)
        return hidden


class Contracting(nn.Module):
    """The half of a U-Net that goes down, its middle included."""

    def __init__(self, size: UNetSize) -> None:
        super().__init__()
        self.time = TimestepEmbedder(size.time, size.ch)
        self.vector = nn.Sequential(nn.Linear(size.vector, size.time), nn.SiLU(), nn.Linear(size.time, size.time))
        self.conv_in = nn.Conv2d(size.channels, size.ch, 3, padding=1)
        self.levels, self.downsamples = nn.ModuleList(), nn.ModuleList()
        self.skip_widths = [size.ch]
        inputs = size.ch
        for index, (width, depth) in enumerate(zip(size.widths, size.depths, strict=True)):
            if index:
                self.downsamples.append(nn.Conv2d(inputs, inputs, 3, stride=2, padding=1))
                self.skip_widths.append(inputs)
            befores = [inputs] + [width] * (size.num_res_blocks - 1)
            self.levels.append(nn.ModuleList(Step(size, before, width, depth) for before in befores))
            self.skip_widths += [width] * size.num_res_blocks
            inputs = width
        self.middle = Step(size, inputs, inputs, size.depths[-1])
        self.middle_end = ResBlock(inputs, inputs, size.time)

    def embed(self, times: Tensor, vector: Tensor) -> Tensor:
        """Times `(B,)` and vectors `(B, vector)` to `(B, time)`."""
        embedded: Tensor = self.time(times) + self.vector(vector)
        return embedded

    def forward(
        self, x: Tensor, time: Tensor, context: Tensor, hint: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """What the middle gives, and the skips in running order; `hint` is added behind the first convolution."""
        hidden = self.conv_in(x)
        if hint is not None:
            hidden = hidden + hint
        skips = [hidden]
        levels: list[Any] = list(self.levels)
        for index, level in enumerate(levels):
            if index:
                hidden = self.downsamples[index - 1](hidden)
                skips.append(hidden)
            for step in level:
                hidden = step(hidden, time, context)
                skips.append(hidden)
        return self.middle_end(self.middle(hidden, time, context), time), skips


class TextUNet(nn.Module):
    """Noisy latents, a time, a text and a vector to the noise in the latents."""

    def __init__(self, size: UNetSize) -> None:
        super().__init__()
        self.contracting = Contracting(size)
        self.levels, self.upsamples = nn.ModuleList(), nn.ModuleList()
        skips = list(self.contracting.skip_widths)
        inputs = size.widths[-1]
        for index in range(len(size.widths) - 1, -1, -1):
            steps = []
            for _ in range(size.num_res_blocks + 1):
                steps.append(Step(size, inputs + skips.pop(), size.widths[index], size.depths[index]))
                inputs = size.widths[index]
            self.levels.append(nn.ModuleList(steps))
            if index:
                self.upsamples.append(nn.Conv2d(inputs, inputs, 3, padding=1))
        self.norm_out = nn.GroupNorm(GROUPS, size.ch)
        self.conv_out = nn.Conv2d(size.ch, size.channels, 3, padding=1)

    def forward(
        self, x: Tensor, times: Tensor, context: Tensor, vector: Tensor, control: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Latents `(B, channels, H, W)` to the same shape.

        Args:
            x: The latents.
            times: `(B,)`.
            context: The text, `(B, T, context)`.
            vector: `(B, vector)`.
            control: What is added to the skips, in running order, and to the middle's output, last.
        """
        time = self.contracting.embed(times, vector)
        hidden, skips = self.contracting(x, time, context)
        if control is not None:
            hidden = hidden + control[-1]
            skips = [skip + added for skip, added in zip(skips, control[:-1], strict=True)]
        levels: list[Any] = list(self.levels)
        for index, level in enumerate(levels):
            for step in level:
                hidden = step(torch.cat([hidden, skips.pop()], dim=1), time, context)
            if index != len(levels) - 1:
                grown = functional.interpolate(hidden, scale_factor=2.0, mode="nearest")
                hidden = self.upsamples[index](grown)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(hidden)))
        return out


class Control(nn.Module):
    """A trainable copy of a U-Net's contracting half that is shown a picture, joined to it by convolutions of zeros.

    Args:
        size: Sizes of the U-Net.
        channels: Channels of the picture.
    """

    def __init__(self, size: UNetSize, channels: int) -> None:
        super().__init__()
        self.hint = nn.Sequential(
            nn.Conv2d(channels, size.ch, 3, padding=1), nn.SiLU(), _zero(nn.Conv2d(size.ch, size.ch, 3, padding=1))
        )
        self.contracting = Contracting(size)
        widths = [*self.contracting.skip_widths, size.widths[-1]]
        self.zero = nn.ModuleList(_zero(nn.Conv2d(width, width, 1)) for width in widths)

    def forward(self, x: Tensor, times: Tensor, context: Tensor, vector: Tensor, picture: Tensor) -> list[Tensor]:
        """What `TextUNet` adds: one tensor per skip, and the middle's; `picture` is `(B, channels, H, W)`."""
        time = self.contracting.embed(times, vector)
        middle, skips = self.contracting(x, time, context, self.hint(picture))
        return [zero(part) for zero, part in zip(self.zero, [*skips, middle], strict=True)]


def _zero(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
