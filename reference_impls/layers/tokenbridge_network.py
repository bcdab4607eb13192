"""TokenBridge's generator (arXiv 2503.16430): MAR's backbone, and a small transformer over channels."""

import math
from typing import NamedTuple

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.class_generator import Watch
from reference_impls.layers.gaussian_levels import GaussianLevels
from reference_impls.layers.mar_backbone import EPS, MarBackbone
from reference_impls.layers.precision import at_least_float32

__all__ = ["CHANNEL_ORDER", "RENAMES", "ChannelHead", "ChannelSize", "TokenBridgeNetwork"]

RENAMES = (
    (r"^(reconstruction_values|boundaries)$", r"quantize.\1"),
    (r"^channel_(embed|mask|blocks|norm|final|heads)\b", r"channels.\1"),
    (r"^(condition_proj|timesteps_embeddings|token_embeddings)\b", r"channels.\1"),
)
"""The release's keys to those of `TokenBridgeNetwork`."""

CHANNEL_ORDER = (8, 1, 10, 9, 6, 12, 4, 0, 3, 11, 7, 14, 2, 15, 13, 5)
"""In which KL-16's channels are written: the release orders them by how they hold frequencies."""

Cache = list[Tensor]
"""Keys and values `(M, heads, t, d)` of what a block saw before; empty at first."""


class ChannelSize(NamedTuple):
    """Sizes of the transformer over channels."""

    dim: int
    depth: int
    heads: int


class ChannelAttention(nn.Module):
    """Causal self-attention with normalised queries and keys."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm, self.k_norm = (nn.LayerNorm(dim // heads, eps=EPS) for _ in range(2))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """`(M, t, D)` to the same shape; with a cache, `x` is one step behind what is in it, and is added to it."""
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        query, key = self.q_norm(query).to(value.dtype), self.k_norm(key).to(value.dtype)
        if cache is not None:
            if cache:
                key, value = torch.cat([cache[0], key], dim=2), torch.cat([cache[1], value], dim=2)
            cache[:] = key, value
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=cache is None)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class ChannelBlock(nn.Module):
    """A transformer block that a condition modulates step by step (adaLN)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(dim, eps=EPS) for _ in range(2))
        self.attn = ChannelAttention(dim, heads)
        self.mlp = Mlp(dim, 4 * dim)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(self, x: Tensor, condition: Tensor, cache: Cache | None = None) -> Tensor:
        """Steps and their conditions `(M, t, D)` to steps."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, dim=-1)
        x = x + gate1 * self.attn(self.norm1(x) * (1.0 + scale1) + shift1, cache)
        out: Tensor = x + gate2 * self.mlp(self.norm2(x) * (1.0 + scale2) + shift2)
        return out


class ChannelFinal(nn.Module):
    """The modulated norm before the heads."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(dim, eps=EPS, elementwise_affine=False)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Steps and their conditions `(M, t, D)` to steps."""
        # Quirk of the release: the scale comes first, unlike in DiT and MAR.
        scale, shift = self.adaLN_modulation(condition).chunk(2, dim=-1)
        out: Tensor = self.norm_final(x) * (1.0 + scale) + shift
        return out


class ChannelHead(nn.Module):
    """The codes of one token, channel after channel, given the backbone's features of it.

    Args:
        features: Channels of the features, D.
        size: Of the transformer.
        levels: Codes of a channel, K.
        order: Which channel is written when.
        saved: Keep in the state dict what is computed and not learned.
    """

    inverse: Tensor

    def __init__(
        self,
        features: int,
        size: ChannelSize,
        levels: int,
        order: tuple[int, ...] = CHANNEL_ORDER,
        *,
        saved: bool = False,
    ) -> None:
        super().__init__()
        dim, steps = size.dim, len(order)
        self.order = order
        self.condition_proj = nn.Linear(features, dim)
        self.embed, self.timesteps_embeddings = (
            nn.Parameter(nn.init.normal_(torch.empty(1, steps, dim), std=0.02)) for _ in range(2)
        )
        self.token_embeddings = nn.ModuleList(nn.Embedding(levels, dim) for _ in range(steps - 1))
        self.blocks = nn.ModuleList(ChannelBlock(dim, size.heads) for _ in range(size.depth))
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.final = ChannelFinal(dim)
        self.heads = nn.ModuleList(nn.Linear(dim, levels) for _ in range(steps))
        # In the release's state; attention here is told to be causal.
        self.register_buffer("mask", torch.full((steps, steps), -math.inf).triu(1), persistent=saved)
        self.register_buffer("inverse", torch.tensor(order).argsort(), persistent=False)

    def _run(self, x: Tensor, condition: Tensor, caches: list[Cache] | None = None) -> Tensor:
        for index, block in enumerate(self.blocks):
            x = block(x, condition, None if caches is None else caches[index])
        out: Tensor = self.final(self.norm(x), condition)
        return out

    def forward(self, features: Tensor, codes: Tensor) -> Tensor:
        """Logits `(M, steps, K)` in the order of writing, for features `(M, D)` and codes `(M, channels)`.

        As in training: every step sees the codes before it.
        """
        condition = self.condition_proj(features).unsqueeze(1)
        written = codes[:, list(self.order)]
        before = [embedding(written[:, step]) for step, embedding in enumerate(self.token_embeddings)]
        x = torch.cat([condition, torch.stack(before, dim=1)], dim=1) + self.embed
        out = self._run(x, condition + self.timesteps_embeddings)
        return torch.stack([head(out[:, step]) for step, head in enumerate(self.heads)], dim=1)

    def sample(
        self, features: Tensor, noise: Tensor | None = None, *, temperature: float = 1.0, watch: Watch
    ) -> Tensor:
        """Codes `(M, channels)` for features `(M, D)`, the likeliest ones if there is no noise.

        `noise` `(M, steps, K)` is drawn from Exponential(1), in the order of writing; `watch` sees all logits at once.
        """
        conditions = self.condition_proj(features).unsqueeze(1) + self.timesteps_embeddings
        # Quirk of the release: here the first step has its time added, which in training it has not.
        x = conditions[:, :1]
        caches: list[Cache] = [[] for _ in self.blocks]
        written: list[Tensor] = []
        seen: list[Tensor] = []
        for step, head in enumerate(self.heads):
            out = self._run(x + self.embed[:, step : step + 1], conditions[:, step : step + 1], caches)
            logits = at_least_float32(head(out[:, 0]))
            seen.append(logits)
            if noise is not None:
                logits = logits / temperature - noise[:, step].log()
            written.append(logits.argmax(-1))
            if step < len(self.token_embeddings):
                x = self.token_embeddings[step](written[-1]).unsqueeze(1)
        watch.see(torch.stack(seen, dim=1))
        return torch.stack(written, dim=1)[:, self.inverse]


class TokenBridgeNetwork(MarBackbone):
    """TokenBridge's generator: no images, but the codes and the scaled latents of KL-16.

    Args:
        grid: Side of the grid of tokens.
        classes: Number of classes.
        buffer_size: As in `MarBackbone`.
        encoder: Width, depth and heads of the backbone's encoder.
        decoder: And of its decoder.
        channel: Sizes of the transformer over channels.
        levels: Codes of a channel.
        saved_tables: Keep in the state dict what is computed and not learned, as the release does.
    """

    def __init__(
        self,
        *,
        grid: int,
        classes: int = 1000,
        buffer_size: int = 64,
        encoder: tuple[int, int, int],
        decoder: tuple[int, int, int],
        channel: tuple[int, int, int],
        levels: int = 64,
        saved_tables: bool = False,
    ) -> None:
        super().__init__(
            length=grid**2,
            channels=len(CHANNEL_ORDER),
            classes=classes,
            buffer_size=buffer_size,
            **{f"encoder_{name}": value for name, value in zip(("dim", "depth", "heads"), encoder, strict=True)},
            **{f"decoder_{name}": value for name, value in zip(("dim", "depth", "heads"), decoder, strict=True)},
        )
        self.levels = levels
        self.quantize = GaussianLevels(levels, saved=saved_tables)
        self.channels = ChannelHead(decoder[0], ChannelSize(*channel), levels, saved=saved_tables)
