"""FlowTok's networks (arXiv 2503.10772, sections 3.2 and 3.3): a text to Gaussians, and the flow to images."""

import functools
from typing import NamedTuple

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from reference_impls.layers.dit_blocks import DiTBlock, FinalLayer, TimestepEmbedder
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.swiglu_blocks import Attention

__all__ = ["FlowTokDiT", "TextGaussian", "TextProjector", "align_projector"]

LEAST_LOG, MOST_LOG = -30.0, 20.0
"""Bounds of logarithms of variances, as latent diffusion's autoencoders have them."""
TIME_FACTOR = 1000.0
"""What times from 0 to 1 are multiplied by before they are encoded: DiT's run to 1000."""
ALIGN_WIDTH = 512


class TextGaussian(NamedTuple):
    """What a text becomes: a Gaussian for every token, float32 at least."""

    mean: Tensor
    """`(B, N, C)`."""
    log_variance: Tensor
    """`(B, N, C)`."""

    def drawn(self, noise: Tensor) -> Tensor:
        """`mean + std * noise`, with `noise` standard normal `(B, N, C)`."""
        return self.mean + torch.exp(0.5 * self.log_variance) * noise.to(self.mean)


class PostNormBlock(nn.Module):
    """The first transformer's block (arXiv 1706.03762): attention, then an MLP, each with the norm behind its sum."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, T, width)` to the same shape."""
        x = self.norm1(x + self.attn(x))
        out: Tensor = self.norm2(x + self.mlp(x))
        return out


class TextProjector(nn.Module):
    """States of a text's tokens to as many Gaussians of a latent's channels.

    Args:
        width: Channels of the states, E.
        channels: Of a latent, C.
        depth: Number of blocks.
        heads: Attention heads of each.
        hidden: Hidden width of their MLPs.
    """

    def __init__(self, width: int, channels: int, *, depth: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(PostNormBlock(width, heads, hidden) for _ in range(depth))
        self.to_moments = nn.Linear(width, 2 * channels)

    def forward(self, states: Tensor) -> TextGaussian:
        """`(B, N, E)` to the Gaussians of `(B, N, C)`."""
        x = states.to(self.to_moments.weight.dtype)
        for block in self.blocks:
            x = block(x)
        mean, log_variance = at_least_float32(self.to_moments(x)).chunk(2, dim=2)
        return TextGaussian(mean, log_variance.clamp(LEAST_LOG, MOST_LOG))


def align_projector(inputs: int, channels: int) -> nn.Sequential:
    """What the states go through to be compared with their Gaussians in training; no part of sampling."""
    first, second = nn.Linear(inputs, ALIGN_WIDTH), nn.Linear(ALIGN_WIDTH, ALIGN_WIDTH)
    return nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), nn.Linear(ALIGN_WIDTH, channels))


@functools.lru_cache(maxsize=8)
@torch.inference_mode(mode=False)  # what is kept must also do for training
def line_positions(width: int, length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Fixed positions `(length, width)`: sines, then cosines, of the place, frequencies from 1 to almost 1 / 10000.

    They are computed in float64.
    """
    half = width // 2
    frequencies = 10000.0 ** -(torch.arange(half, dtype=torch.float64, device="cpu") / half)
    angles = torch.arange(length, dtype=torch.float64, device="cpu")[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(device=device, dtype=dtype)


class FlowTokDiT(nn.Module):
    """A DiT over one-dimensional latents, which knows the time and one bit, and no text: that is where it starts from.

    Args:
        length: Latents of an image, N, and tokens of a text.
        channels: Of a latent, C.
        width: Channels of the tokens, D.
        depth: Number of blocks.
        heads: Attention heads of each.
    """

    def __init__(self, *, length: int, channels: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.length, self.channels, self.width = length, channels, width
        self.x_embed = nn.Linear(channels, width)
        self.time_embed = TimestepEmbedder(width, factor=TIME_FACTOR, exact=True)
        self.bit_embed = nn.Embedding(2, width)
        self.blocks = nn.ModuleList(DiTBlock(width, heads) for _ in range(depth))
        self.final_layer = FinalLayer(width, channels)

    def forward(self, x: Tensor, times: Tensor, paired: Tensor) -> Tensor:
        """Velocities `(B, N, C)` of latents on their way `(B, N, C)` at `times` `(B,)` from 0, text, to 1, image.

        `paired` (int64, `(B,)`) is 1 where the image is to be the text's, and 0 where any image will do.
        """
        weight = self.x_embed.weight
        places = line_positions(self.width, self.length, weight.dtype, weight.device)
        hidden = self.x_embed(x.to(weight.dtype)) + places
        condition = self.time_embed(times) + self.bit_embed(paired)
        for block in self.blocks:
            hidden = block(hidden, condition)
        out: Tensor = self.final_layer(hidden, condition)
        return out
