"""The parts of diffusion transformers (DiT, arXiv 2212.09748, section 3.2), under the release's key names."""

import math

import torch
from timm.layers.activations import GELUTanh
from timm.layers.attention import Attention
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from reference_impls.layers.precision import at_least_float32

__all__ = [
    "DiTBlock",
    "FinalLayer",
    "LabelEmbedder",
    "TimestepEmbedder",
    "grid_sincos",
    "modulate",
    "modulation",
    "timestep_features",
    "unpatchify",
]

EPS = 1e-6


def timestep_features(
    times: Tensor, dim: int, max_period: float = 10000.0, factor: float = 1.0, *, exact: bool = False
) -> Tensor:
    """Cosines, then sines, of `times` `(...)` at `dim // 2` frequencies: `(..., dim)`, float32 at least.

    The frequencies fall from `factor` to almost `factor` / `max_period` (Transformer, arXiv 1706.03762, section 3.5).
    They are float32 numbers, as in the releases, whatever they are computed with afterwards; if `exact`, they are of
    the type of the angles: float64 for times in float64. `dim` is even.
    """
    half = dim // 2
    known = at_least_float32(times)
    places = torch.arange(half, dtype=known.dtype if exact else torch.float32, device=times.device)
    frequencies = torch.exp(-math.log(max_period) * places / half) * factor
    angles = known[..., None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class LabelEmbedder(nn.Module):
    """A vector per class, and one more for the dropped class."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, width)
        nn.init.normal_(self.embedding_table.weight, std=0.02)

    def forward(self, labels: Tensor) -> Tensor:
        """`(B,)` to `(B, width)`."""
        vectors: Tensor = self.embedding_table(labels)
        return vectors


class TimestepEmbedder(nn.Module):
    """A time as a vector: `timestep_features`, Linear, SiLU, Linear.

    Args:
        width: Of the vector.
        features: How many cosines and sines.
        max_period: The longest period of them.
        factor: What times are multiplied by.
        exact: Whether frequencies are float64 where the network is, and not always float32.
    """

    def __init__(
        self,
        width: int,
        features: int = 256,
        max_period: float = 10000.0,
        factor: float = 1.0,
        *,
        exact: bool = False,
    ) -> None:
        super().__init__()
        self.features, self.max_period, self.factor, self.exact = features, max_period, factor, exact
        self.mlp = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, times: Tensor) -> Tensor:
        """`(...)` to `(..., width)`."""
        number_type = next(self.mlp.parameters()).dtype
        wide = times.double() if number_type == torch.float64 else times.float()
        waves = timestep_features(wide, self.features, self.max_period, self.factor, exact=self.exact)
        out: Tensor = self.mlp(waves.to(number_type))
        return out


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """`x` `(B, L, D)` scaled and shifted, per image, by `(B, D)` each."""
    return x * (1.0 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class DiTBlock(nn.Module):
    """A transformer block whose norms and residuals a condition modulates (adaLN-Zero); MLP with tanh's GELU.

    Args:
        width: Channels of tokens and condition.
        heads: Attention heads.
        mlp_ratio: Hidden channels of the MLP over `width`.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS, elementwise_affine=False)
        self.attn = Attention(width, num_heads=heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(width, eps=EPS, elementwise_affine=False)
        self.mlp = Mlp(width, int(width * mlp_ratio), act_layer=GELUTanh)
        self.adaLN_modulation = modulation(width, 6)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens `(B, L, D)` and conditions `(B, D)` to tokens."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, dim=1)
        x = x + gate1.unsqueeze(1) * self.attn(modulate(self.norm1(x), shift1, scale1))
        out: Tensor = x + gate2.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift2, scale2))
        return out


class FinalLayer(nn.Module):
    """A modulated norm, and the projection of every token to its patch.

    Args:
        width: Channels of tokens and condition.
        outputs: Values of a patch.
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=EPS, elementwise_affine=False)
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = modulation(width, 2)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens `(B, L, D)` and conditions `(B, D)` to `(B, L, outputs)`."""
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=1)
        out: Tensor = self.linear(modulate(self.norm_final(x), shift, scale))
        return out


def modulation(width: int, parts: int) -> nn.Sequential:
    """What makes `parts * width` shifts, scales and gates of a condition `(..., width)`; zeros to begin with."""
    last = nn.Linear(width, parts * width)
    nn.init.zeros_(last.weight)  # the "Zero" of adaLN-Zero: a block begins as the identity
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.SiLU(), last)


def grid_sincos(
    width: int, height: int, columns: int | None = None, *, number_type: torch.dtype = torch.float32
) -> Tensor:
    """Fixed positions of a grid's cells in row-major order: `(height * columns, width)`, computed in float64.

    The first half of the channels tells the column, the second the row; each half holds sines, then cosines, at
    `width / 4` frequencies that fall from 1 to almost 1 / 10000. `width` is a multiple of 4; a square if no `columns`.
    """
    quarter = width // 4
    frequencies = 10000.0 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    rows, cols = (
        torch.arange(side, dtype=torch.float64)[:, None] * frequencies for side in (height, columns or height)
    )
    row_part, col_part = (torch.cat([angles.sin(), angles.cos()], dim=1) for angles in (rows, cols))
    shape = (len(rows), len(cols), width // 2)
    grid = torch.cat([col_part[None].expand(shape), row_part[:, None].expand(shape)], dim=2)
    return grid.flatten(0, 1).to(number_type)


def unpatchify(tokens: Tensor, patch_size: int, height: int) -> Tensor:
    """Tokens `(B, height * w, p * p * C)`, each a patch in the order (row, column, channel), to `(B, C, H, W)`."""
    batch, count, values = tokens.shape
    channels, columns = values // patch_size**2, count // height
    patches = tokens.reshape(batch, height, columns, patch_size, patch_size, channels)
    return patches.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, height * patch_size, columns * patch_size)
