"""MAR's diffusion head: a small MLP that denoises single tokens (arXiv 2406.11838, sections 3.2 and 4)."""

import math

import numpy as np
from torch import Tensor, nn

from reference_impls.layers.diffusion import Table
from reference_impls.layers.dit_blocks import EPS, FinalLayer, TimestepEmbedder, modulation

__all__ = ["TRAINING_STEPS", "DenoisingMLP", "cosine_betas"]

TRAINING_STEPS = 1000
"""Steps in which the heads were trained; fewer of them are sampled."""
LARGEST_BETA = 0.999


def cosine_betas(steps: int) -> Table:
    """Variances `(steps,)`, float64, of the cosine schedule (Improved DDPM, arXiv 2102.09672, eq. 17)."""
    kept = np.cos((np.arange(steps + 1, dtype=np.float64) / steps + 0.008) / 1.008 * math.pi / 2.0) ** 2
    betas: Table = np.minimum(1.0 - kept[1:] / kept[:-1], LARGEST_BETA)
    return betas


class ResidualBlock(nn.Module):
    """A modulated norm, Linear, SiLU, Linear, and a gate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_ln = nn.LayerNorm(width, eps=EPS)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.adaLN_modulation = modulation(width, 3)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens `(M, W)`, each with its condition `(M, W)`, to tokens."""
        shift, scale, gate = self.adaLN_modulation(condition).chunk(3, dim=1)
        out: Tensor = x + gate * self.mlp(self.in_ln(x) * (1.0 + scale) + shift)
        return out


class DenoisingMLP(nn.Module):
    """Noise and variance of one noisy token, of the time and of a feature that says what the token may be.

    Args:
        channels: Of a token, C.
        feature: Channels of what the backbone gives for it, D.
        width: Of the MLP, W.
        depth: Residual blocks.
    """

    def __init__(self, channels: int, feature: int, width: int, depth: int) -> None:
        super().__init__()
        self.channels = channels
        self.time_embed = TimestepEmbedder(width, exact=True)
        self.cond_embed = nn.Linear(feature, width)
        self.input_proj = nn.Linear(channels, width)
        self.res_blocks = nn.ModuleList(ResidualBlock(width) for _ in range(depth))
        self.final_layer = FinalLayer(width, 2 * channels)

    def forward(self, x: Tensor, times: Tensor, features: Tensor) -> Tensor:
        """Noisy tokens `(M, C)`, training steps `(M,)`, features `(M, D)` to noise, then variance, `(M, 2C)`."""
        return self.denoise(x, times, self.cond_embed(features))

    def denoise(self, x: Tensor, times: Tensor, embedded: Tensor) -> Tensor:
        """As forward, of features that went through `cond_embed`, `(M, W)`; `times` may be one for all, `(1,)`."""
        condition = self.time_embed(times) + embedded
        x = self.input_proj(x.to(embedded.dtype))
        for block in self.res_blocks:
            x = block(x, condition)
        out: Tensor = self.final_layer(x.unsqueeze(1), condition).squeeze(1)
        return out
