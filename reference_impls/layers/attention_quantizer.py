"""A codebook that is attended to, scale after scale: the bottleneck of CODA (arXiv 2503.17760)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.precision import at_least_float32

__all__ = ["AttentionQuantizer", "ScaledCodes"]


@dataclass(frozen=True, slots=True)
class ScaledCodes:
    """A grid of latents as codes of several scales."""

    codes: Tensor
    """int64 `(B, N)`: the scales one after the other, small to large, each row by row."""
    quantized: Tensor
    """What the codes stand for, `(B, C, h, w)`."""
    logits: Tensor
    """Of the last scale, `(B, s*s, K)`."""


class CodebookAttention(nn.Module):
    """Queries from latents, keys and values from the codebook; a projection that is named `q` is `to_q` in the release.

    Args:
        channels: Channels of latents and codes, C.
        dim: Channels of queries and keys.
        norm: Divide queries and keys by their root mean square.
    """

    def __init__(self, channels: int, dim: int, *, norm: bool) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(channels, dim), nn.Linear(channels, dim)
        self.v = nn.Linear(channels, channels)
        self.norm_q = nn.RMSNorm(dim, eps=1e-5) if norm else nn.Identity()
        self.norm_k = nn.RMSNorm(dim, eps=1e-5) if norm else nn.Identity()
        self.scale = 1.0 / math.sqrt(dim)

    def logits(self, latents: Tensor, keys: Tensor) -> Tensor:
        """Scores `(B, N, K)` of latents `(B, N, C)` for `keys` `(K, dim)`."""
        queries: Tensor = self.norm_q(self.q(latents))
        return queries @ keys.T * self.scale


class AttentionQuantizer(nn.Module):
    """Residual quantisation over scales, where a code is the likeliest key and stands for its value.

    Every scale takes the area mean of what the scales before it left, and is enlarged by bicubic interpolation.

    Args:
        codebook_size: Number of codes, K.
        channels: Channels of the latents, C.
        scales: Sides of the grids of codes, small to large.
        attn_dim: Channels of queries and keys.
        norm: Divide queries and keys by their root mean square.
    """

    def __init__(self, *, codebook_size: int, channels: int, scales: Sequence[int], attn_dim: int, norm: bool) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.codebooks = nn.Embedding(codebook_size, channels)
        self.attn = CodebookAttention(channels, attn_dim, norm=norm)

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return self.codebooks.num_embeddings

    @property
    def length(self) -> int:
        """Number of codes of one image."""
        return sum(side**2 for side in self.scales)

    def values(self) -> Tensor:
        """What the codes stand for, `(K, C)`: the codebook's rows themselves are never used."""
        rows: Tensor = self.attn.v(self.codebooks.weight)
        return rows

    def forward(self, latents: Tensor) -> ScaledCodes:
        """Quantise `latents` `(B, C, h, w)`, in float32 at least, also under autocast."""
        with torch.autocast(latents.device.type, enabled=False):
            rest = at_least_float32(latents)
            sides = (rest.shape[2], rest.shape[3])
            keys, values = self.attn.norm_k(self.attn.k(self.codebooks.weight)), self.values()
            total, codes, logits = torch.zeros_like(rest), [], rest
            for side in self.scales:
                pooled = functional.interpolate(rest, size=(side, side), mode="area")
                logits = self.attn.logits(pooled.flatten(2).transpose(1, 2), keys)
                codes.append(logits.argmax(-1))
                grid = _enlarged(functional.embedding(codes[-1], values), side, sides)
                total, rest = total + grid, rest - grid
        return ScaledCodes(torch.cat(codes, dim=1), total, logits)

    def lookup(self, codes: Tensor, height: int, width: int) -> Tensor:
        """Latents `(B, C, height, width)` of codes `(B, N)`."""
        with torch.autocast(codes.device.type, enabled=False):
            rows = functional.embedding(codes, self.values())
            parts = rows.split([side**2 for side in self.scales], dim=1)
            grids = [_enlarged(part, side, (height, width)) for part, side in zip(parts, self.scales, strict=True)]
        return torch.stack(grids).sum(0)


def _enlarged(rows: Tensor, side: int, size: tuple[int, int]) -> Tensor:
    """Rows `(B, side*side, C)` as a grid `(B, C, *size)`; at the full size bicubic interpolation changes nothing."""
    grid = rows.transpose(1, 2).reshape(len(rows), rows.shape[2], side, side)
    return functional.interpolate(grid, size=size, mode="bicubic", align_corners=False)
