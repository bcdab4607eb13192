"""Hi-MAR's head for the large tokens: a small diffusion transformer over all of them (arXiv 2505.20288)."""

import math

import numpy as np
import torch
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from reference_impls.layers.denoising_mlp import TRAINING_STEPS, cosine_betas
from reference_impls.layers.diffusion import guide
from reference_impls.layers.dit_blocks import DiTBlock, FinalLayer, TimestepEmbedder, grid_sincos
from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.layers.mar_sampling import cosine_diffusion, picked

__all__ = ["GridDenoiser", "denoise_grid"]


class TokenDiTBlock(DiTBlock):
    """DiT's block where every token has a condition of its own."""

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens and conditions `(B, L, W)` to tokens."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, dim=-1)
        x = x + gate1 * self.attn(self.norm1(x) * (1.0 + scale1) + shift1)
        out: Tensor = x + gate2 * self.mlp(self.norm2(x) * (1.0 + scale2) + shift2)
        return out


class GridDenoiser(nn.Module):
    """The noise in a grid of tokens, of the time and of a feature for each of them.

    Args:
        grid: Tokens of a side.
        channels: Of a token, C.
        feature: Channels of what the backbone gives for it, D.
        width: Of the transformer, W.
        depth: Its blocks.
        heads: Attention heads of each.
    """

    pos_embed: Tensor
    c_pos_embed: Tensor

    def __init__(self, *, grid: int, channels: int, feature: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.grid, self.channels = grid, channels
        # In float64, so that a network made float64 has them to the last digit; they are cast where they are added.
        self.register_buffer("pos_embed", grid_sincos(width, grid, number_type=torch.float64).unsqueeze(0))
        self.register_buffer("c_pos_embed", torch.zeros(1, grid**2, width))  # the release never adds these
        self.x_embedder = PatchEmbed(grid, 1, channels, width)
        self.t_embedder = TimestepEmbedder(width, exact=True)
        self.c_embedder = PatchEmbed(grid, 1, feature, width)
        self.blocks = nn.ModuleList(TokenDiTBlock(width, heads) for _ in range(depth))
        self.final_layer = FinalLayer(width, channels)

    def embed(self, features: Tensor) -> Tensor:
        """What `denoise` takes, `(B, L, W)`, of features `(B, L, D)`."""
        out: Tensor = self.c_embedder(as_grid(features, self.grid))
        return out

    def denoise(self, x: Tensor, times: Tensor, embedded: Tensor) -> Tensor:
        """Noisy tokens `(B, C, h, w)`, training steps `(B,)` or one for all, `(1,)`, to their noise `(B, C, h, w)`."""
        condition = self.t_embedder(times).unsqueeze(1) + embedded
        x = self.x_embedder(x.to(embedded.dtype)) + self.pos_embed.to(embedded.dtype)
        for block in self.blocks:
            x = block(x, condition)
        shape = x.shape[:2]
        rows = self.final_layer(x.flatten(0, 1).unsqueeze(1), condition.flatten(0, 1)).squeeze(1)
        return as_grid(rows.unflatten(0, shape), self.grid)


def denoise_grid(
    head: GridDenoiser,
    features: Tensor,
    tokens: Tensor,
    masked: Tensor,
    start: Tensor,
    noises: Tensor,
    temperature: float,
    scale: float,
) -> Tensor:
    """Tokens `(B, n, C)` at the places `masked` `(B, n)`, all drawn together, led by those that are known.

    The head sees the known ones as noisy as the others: mixed, before every step, with the noise of the start.

    Args:
        head: What denoises them.
        features: `(B, N, D)`; where they are twice as many as images, the second half are those without a class.
        tokens: `(B, N, C)`; those at `masked` are not looked at.
        masked: int64 `(B, n)`.
        start: Standard normal, `(B, N, C)`.
        noises: What is added at each of T steps, `(B, T, N, C)`.
        temperature: What they are multiplied by.
        scale: Of guidance, where features are twice as many.
    """
    diffusion = cosine_diffusion(noises.shape[1])
    kept = np.cumprod(1.0 - cosine_betas(TRAINING_STEPS))[list(diffusion.steps)][::-1].tolist()
    embedded, copies = head.embed(features), 2 if len(features) > len(tokens) else 1
    known, begun = as_grid(tokens, head.grid), as_grid(start, head.grid)
    free = torch.zeros_like(tokens[:, :, 0]).scatter(1, masked, 1.0).bool().unflatten(1, (1, head.grid, -1))
    left = iter(kept)

    def model(x: Tensor, times: Tensor) -> Tensor:
        share = next(left)
        x = torch.where(free, x, math.sqrt(share) * known + math.sqrt(1.0 - share) * begun)
        noise = head.denoise(x.repeat(copies, 1, 1, 1), times[:1], embedded)
        if copies > 1:
            told, untold = noise.chunk(2)
            noise = guide(told, untold, scale, head.channels)
        # The variance is not learned but the forward process's, which a learned one would call 1.
        return torch.cat([noise, torch.ones_like(noise)], dim=1)

    drawn = diffusion.sample(model, begun, (as_grid(noise, head.grid) * temperature for noise in noises.unbind(1)))
    return picked(as_rows(drawn), masked)
