"""The convolutional encoder and decoder of VQGAN and latent diffusion, and what others call their parts.

VQGAN (arXiv 2012.09841, section 3.1) and latent diffusion (arXiv 2112.10752) share this network, and most later
tokenizers took it over. Its parts bear the names of CompVis/taming-transformers; `LLAMAGEN` and `DIFFUSERS` say
what LlamaGen's family and diffusers' `AutoencoderKL` call them.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias, cast

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["DIFFUSERS", "LLAMAGEN", "AttentionKeys", "LdmDecoder", "LdmEncoder", "LdmSize", "attention_levels"]

GROUPS = 32

AttentionKeys: TypeAlias = Literal["separate", "fused", "linear"]
"""How a release keeps attention's projections: q, k and v as 1x1 convolutions, as one, or as linear layers."""

LLAMAGEN = (
    (r"\.conv_blocks\.(\d+)\.res\.", r".levels.\1.block."),
    (r"(encoder)\.conv_blocks\.", r"\1.down."),
    (r"(encoder)\.levels\.", r"\1.down."),
    (r"(decoder)\.conv_blocks\.", r"\1.up."),
    (r"(decoder)\.levels\.", r"\1.up."),
    (r"\.mid\.0\.", ".mid.block_1."),
    (r"\.mid\.1\.", ".mid.attn_1."),
    (r"\.mid\.2\.", ".mid.block_2."),
)
"""LlamaGen's key to ours; its decoder keeps levels in running order."""

DIFFUSERS = (
    (r"\.down_blocks\.(\d+)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d+)\.attentions\.", r".down.\1.attn."),
    (r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.up_blocks\.(\d+)\.resnets\.", r".up.\1.block."),
    (r"\.up_blocks\.(\d+)\.attentions\.", r".up.\1.attn."),
    (r"\.up_blocks\.(\d+)\.upsamplers\.0\.", r".up.\1.upsample."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
    (r"\.group_norm\.", ".norm."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
    (r"\.conv_norm_out\.", ".norm_out."),
)
"""diffusers' key to ours; linear projections, and its decoder keeps levels in running order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LdmSize:
    """Sizes that encoder and decoder share."""

    ch: int
    """Width that `ch_mult` multiplies; a multiple of 32, for the group norms."""
    ch_mult: Sequence[int]
    """One factor per level, finest first."""
    num_res_blocks: int
    """Residual blocks per level of the encoder; the decoder has one more."""
    z_channels: int
    attention: AttentionKeys = "separate"

    @property
    def levels(self) -> int:
        """How many resolutions there are."""
        return len(self.ch_mult)

    @property
    def factor(self) -> int:
        """How many pixels of a side become one latent."""
        return int(2 ** (self.levels - 1))


def attention_levels(levels: int, resolution: int, resolutions: Collection[int]) -> tuple[int, ...]:
    """The levels at which a nominal `resolution`, halved per level, is among `resolutions`."""
    return tuple(level for level in range(levels) if resolution // 2**level in resolutions)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    """Norm, SiLU, convolution, twice, beside the input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = _norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = _norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """`(B, inputs, H, W)` to `(B, outputs, H, W)`."""
        hidden: Tensor = self.conv1(functional.silu(self.norm1(x)))
        hidden = self.conv2(functional.silu(self.norm2(hidden)))
        shortcut: Tensor = x if self.nin_shortcut is None else self.nin_shortcut(x)
        return shortcut + hidden


class AttnBlock(nn.Module):
    """Self-attention over all positions, one head, beside the input."""

    def __init__(self, channels: int, keys: AttentionKeys) -> None:
        super().__init__()
        self.norm = _norm(channels)
        if keys == "fused":
            self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        else:
            self.q, self.k, self.v = (_projection(channels, keys) for _ in range(3))
        self.proj_out = _projection(channels, keys)
        self.fused = keys == "fused"

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same shape."""
        normed = self.norm(x)
        if self.fused:
            query, key, value = _rows(self.qkv, normed).chunk(3, dim=-1)
        else:
            query, key, value = (_rows(projection, normed) for projection in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out = functional.linear(mixed, self.proj_out.weight.flatten(1), self.proj_out.bias)
        return x + out.squeeze(1).transpose(1, 2).reshape(x.shape)


def _projection(channels: int, keys: AttentionKeys) -> nn.Linear | nn.Conv2d:
    return nn.Linear(channels, channels) if keys == "linear" else nn.Conv2d(channels, channels, 1)


def _rows(projection: nn.Linear | nn.Conv2d, x: Tensor) -> Tensor:
    """A projection of every position: `(B, C, H, W)` to one head `(B, 1, H*W, C')`."""
    positions = x.flatten(2).transpose(1, 2)
    return functional.linear(positions, projection.weight.flatten(1), projection.bias).unsqueeze(1)


class Downsample(nn.Module):
    """Halving; one pixel is padded on the right and at the bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, C, H/2, W/2)`."""
        out: Tensor = self.conv(functional.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, C, 2H, 2W)`."""
        out: Tensor = self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class Level(nn.Module):
    """Residual blocks, each with attention behind it where the level has any."""

    def __init__(self, widths: Sequence[int], keys: AttentionKeys | None) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(a, b) for a, b in pairwise(widths))
        self.attn = nn.ModuleList() if keys is None else nn.ModuleList(AttnBlock(width, keys) for width in widths[1:])
        self.downsample: Downsample | None = None
        self.upsample: Upsample | None = None

    def forward(self, x: Tensor) -> Tensor:
        """`(B, widths[0], H, W)` to `(B, widths[-1], H, W)`."""
        for index, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[index](x)
        return x


class Middle(nn.Module):
    """A residual block, attention, a residual block."""

    def __init__(self, width: int, keys: AttentionKeys) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(width, width)
        self.attn_1 = AttnBlock(width, keys)
        self.block_2 = ResnetBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, width, H, W)` to the same shape."""
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class LdmEncoder(nn.Module):
    """Images to a grid of latents, `size.factor` times smaller.

    Args:
        size: Sizes of the network.
        attn_levels: Levels, 0 the finest, with attention behind every residual block.
        out_channels: Channels that come out, where they are not `size.z_channels` (twice that for a Gaussian).
        in_channels: Channels of the images.
    """

    def __init__(
        self, size: LdmSize, attn_levels: Collection[int], out_channels: int | None = None, in_channels: int = 3
    ) -> None:
        super().__init__()
        widths = [size.ch, *(size.ch * factor for factor in size.ch_mult)]
        self.conv_in = nn.Conv2d(in_channels, size.ch, 3, padding=1)
        self.down = nn.ModuleList()
        for index, (before, after) in enumerate(pairwise(widths)):
            level = Level([before, *[after] * size.num_res_blocks], size.attention if index in attn_levels else None)
            if index != size.levels - 1:
                level.downsample = Downsample(after)
            self.down.append(level)
        self.mid = Middle(widths[-1], size.attention)
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], out_channels or size.z_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 3, H, W)` to latents `(B, out_channels, h, w)`."""
        hidden = self.conv_in(images)
        for level in cast("Iterable[Level]", self.down):
            hidden = level(hidden)
            if level.downsample is not None:
                hidden = level.downsample(hidden)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(self.mid(hidden))))
        return out


class LdmDecoder(nn.Module):
    """A grid of latents to images.

    Args:
        size: Sizes of the network.
        attn_levels: Levels, 0 the finest, with attention behind every residual block.
        running_order: Whether `up` holds the coarsest level first; taming's holds the finest first and runs backwards.
        out_channels: Channels that come out.
    """

    def __init__(
        self, size: LdmSize, attn_levels: Collection[int], *, running_order: bool = False, out_channels: int = 3
    ) -> None:
        super().__init__()
        self.running_order = running_order
        widths = [size.ch * factor for factor in size.ch_mult]
        self.conv_in = nn.Conv2d(size.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], size.attention)
        levels = []
        for index, (before, after) in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True)):
            blocks = [before, *[after] * (size.num_res_blocks + 1)]
            level = Level(blocks, size.attention if index in attn_levels else None)
            if index != 0:
                level.upsample = Upsample(after)
            levels.append(level)
        self.up = nn.ModuleList(levels[::-1] if running_order else levels)
        self.norm_out = _norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents `(B, z_channels, h, w)` to images `(B, out_channels, H, W)`."""
        hidden = self.mid(self.conv_in(latents))
        levels = cast("list[Level]", list(self.up) if self.running_order else list(self.up)[::-1])
        for level in levels:
            hidden = level(hidden)
            if level.upsample is not None:
                hidden = level.upsample(hidden)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(hidden)))
        return out
