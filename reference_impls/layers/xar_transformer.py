"""xAR's network: a transformer over cells of latents, each cell at a time of its own (arXiv 2502.20388, section 3).

Keys are those of the released checkpoints. Tokens are in the order of cells, the tokens of a cell row by row.
"""

import functools

import torch
from timm.layers.mlp import SwiGLU
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.dit_blocks import TimestepEmbedder
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.rar_transformer import KeyValues
from reference_impls.layers.swiglu_blocks import drawn

__all__ = ["SIDE", "XarNetwork", "cell_order", "rotary_tables"]

EPS = 1e-6
SIDE = 2
"""Cells of a side of the grid of latents."""
PERIOD = 10000.0


def cell_order(grid: int) -> Tensor:
    """For every token in the order of cells its place in the grid of `grid * grid` latents, row by row."""
    places = torch.arange(grid * grid, device="cpu").reshape(SIDE, grid // SIDE, SIDE, grid // SIDE)
    return places.transpose(1, 2).flatten()


@functools.lru_cache(maxsize=8)
@torch.inference_mode(mode=False)  # what is kept must also do for training
def rotary_tables(grid: int, dim: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Frequencies `(d / 4,)`, and cosines and sines `(N, d)` of tokens in the order of cells, for heads of `dim`.

    Half the channels turn with the row, half with the column, two neighbouring ones at the same frequency
    (RoFormer, arXiv 2104.09864, in two dimensions). They are computed in float64.
    """
    half = dim // 2
    frequencies = PERIOD ** -(torch.arange(0, half, 2, dtype=torch.float64, device="cpu") / half)
    steps = torch.arange(grid, dtype=torch.float64, device="cpu")
    angles = (steps[:, None] * frequencies).repeat_interleave(2, dim=1)
    rows, columns = angles[:, None].expand(-1, grid, -1), angles[None].expand(grid, -1, -1)
    table = torch.cat([rows, columns], dim=2).flatten(0, 1)[cell_order(grid)]
    of_type = [part.to(device=device, dtype=dtype) for part in (frequencies, table.cos(), table.sin())]
    return of_type[0], of_type[1], of_type[2]


def _turned(values: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    exact = at_least_float32(values)
    first, second = exact.unflatten(-1, (-1, 2)).unbind(-1)
    other = torch.stack([-second, first], dim=-1).flatten(-2)
    return (exact * cosines + other * sines).to(values.dtype)


class Rotary(nn.Module):
    """The fixed tables that checkpoints keep for every block; `rotary_tables` is what is computed with.

    So it is no less exact than float32 in a network of half precision, and float64 in one of that.
    """

    def __init__(self, grid: int, dim: int) -> None:
        super().__init__()
        names, place = ("freqs", "freqs_cos", "freqs_sin"), torch.get_default_device()
        for name, table in zip(names, rotary_tables(grid, dim, torch.float32, place), strict=True):
            self.register_buffer(name, table.clone())


class XarAttention(nn.Module):
    """Self-attention with rotary positions."""

    def __init__(self, width: int, heads: int, grid: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.rope = Rotary(grid, width // heads)

    def forward(
        self, x: Tensor, tables: tuple[Tensor, Tensor], bias: Tensor | None, start: int, cache: KeyValues | None
    ) -> Tensor:
        """`(B, n, D)` at places from `start` on to the same shape; `cache` holds what is before, and is filled."""
        query, key, value = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = _turned(query, *tables), _turned(key, *tables)
        if cache is not None:
            key, value = cache.extended(torch.stack([key, value]), start)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class XarBlock(nn.Module):
    """A pre-norm residual block whose norms and residuals the time and the class of a token's cell modulate."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, grid: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=EPS, elementwise_affine=False)
        self.attn = XarAttention(width, heads, grid)
        # Named SwiGLU in the release, but its gate is a GELU.
        self.mlp = SwiGLU(width, int(width * mlp_ratio * 2 / 3), act_layer=nn.GELU)
        self.ada_lin = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(
        self,
        x: Tensor,
        conditions: Tensor,
        tables: tuple[Tensor, Tensor],
        bias: Tensor | None,
        start: int,
        cache: KeyValues | None,
    ) -> Tensor:
        """Tokens `(B, cells * n, D)` and conditions `(B, cells, D)` to tokens; the rest is as in `XarAttention`."""
        cells = conditions.shape[1]
        gate1, gate2, scale1, scale2, shift1, shift2 = self.ada_lin(conditions).unsqueeze(2).chunk(6, dim=3)

        x = x.unflatten(1, (cells, -1))
        shown = (self.norm(x) * (1.0 + scale1) + shift1).flatten(1, 2)
        x = x + gate1 * self.attn(shown, tables, bias, start, cache).unflatten(1, (cells, -1))
        out: Tensor = x + gate2 * self.mlp(self.norm(x) * (1.0 + scale2) + shift2)
        return out.flatten(1, 2)


class XarNetwork(nn.Module):
    """Velocities of noisy cells, given the cells before them: an encoder, and a decoder of the same kind behind it.

    Args:
        grid: Side of the grid of latents, a multiple of 2.
        channels: Channels of a latent, C.
        classes: Number of classes; one row more stands for the dropped one.
        encoder_dim: Width of the encoder.
        encoder_depth: Its blocks.
        encoder_heads: Attention heads of each.
        decoder_dim: Width of the decoder.
        decoder_depth: Its blocks.
        decoder_heads: Attention heads of each.
        mlp_ratio: Hidden channels of the MLPs over two thirds of the width.
    """

    mask: Tensor

    def __init__(
        self,
        *,
        grid: int,
        channels: int,
        classes: int,
        encoder_dim: int,
        encoder_depth: int,
        encoder_heads: int,
        decoder_dim: int,
        decoder_depth: int,
        decoder_heads: int,
        mlp_ratio: float = 4.0,
    ) -> None:
        super().__init__()
        self.grid, self.channels = grid, channels
        self.length, self.cell = grid * grid, (grid // SIDE) ** 2
        self.encoder_pos_embed_learned = drawn(1, self.length, encoder_dim)
        self.decoder_pos_embed_learned = drawn(1, self.length, decoder_dim)
        cells = torch.arange(self.length) // self.cell
        mask = torch.zeros(self.length, self.length).masked_fill(cells[:, None] < cells, -torch.inf)
        self.register_buffer("mask", mask[None, None])
        self.class_emb = nn.Embedding(classes + 1, encoder_dim)
        self.time_embed = TimestepEmbedder(encoder_dim, exact=True)
        self.z_proj = nn.Linear(channels, encoder_dim)
        self.z_proj_ln = nn.RMSNorm(encoder_dim, eps=EPS)
        self.encoder_blocks = nn.ModuleList(
            XarBlock(encoder_dim, encoder_heads, mlp_ratio, grid) for _ in range(encoder_depth)
        )
        self.encoder_norm = nn.RMSNorm(encoder_dim, eps=EPS)
        self.decoder_embed = nn.Linear(encoder_dim, decoder_dim)
        self.decoder_blocks = nn.ModuleList(
            XarBlock(decoder_dim, decoder_heads, mlp_ratio, grid) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.RMSNorm(decoder_dim, eps=EPS)
        self.pred = nn.Linear(decoder_dim, channels)

    @property
    def number_type(self) -> torch.dtype:
        """The type of its own numbers."""
        return self.pred.weight.dtype

    def caches(self) -> list[KeyValues]:
        """Room for the keys and values of a batch in every block."""
        return [KeyValues(self.length) for _ in self._blocks()]

    def velocity(
        self, x: Tensor, times: Tensor, labels: Tensor, first: int = 0, caches: list[KeyValues] | None = None
    ) -> Tensor:
        """Velocities `(B, cells * n, C)` of the tokens `x` of as many cells, from number `first` on.

        Args:
            x: `(B, cells * n, C)`.
            times: Of every cell, from 0 (data) to 1000 (noise): int64 `(B, cells)`.
            labels: Classes `(B,)`; the number of classes is the dropped one.
            first: How many cells are before these: their keys and values are in `caches`.
            caches: Filled from there on.
        """
        start, end = first * self.cell, first * self.cell + x.shape[1]
        conditions = self.class_emb(labels).unsqueeze(1) + self.time_embed(times)
        # One cell sees itself and all before it, which is all there is.
        bias = self.mask[:, :, start:end, :end].to(self.number_type) if times.shape[1] > 1 else None
        x = self.z_proj_ln(self.z_proj(x.to(self.number_type)) + self.encoder_pos_embed_learned[:, start:end])
        depth = len(self.encoder_blocks)
        for index, block in enumerate(self._blocks()):
            if index == depth:
                x = self.decoder_embed(self.encoder_norm(x)) + self.decoder_pos_embed_learned[:, start:end]
            cache = None if caches is None else caches[index]
            x = block(x, conditions, self._tables(block, start, end), bias, start, cache)
        out: Tensor = self.pred(self.decoder_norm(x))
        return out

    def _blocks(self) -> list[XarBlock]:
        return [block for part in (self.encoder_blocks, self.decoder_blocks) for block in part]  # type: ignore[misc]

    def _tables(self, block: XarBlock, start: int, end: int) -> tuple[Tensor, Tensor]:
        dim = block.attn.proj.in_features // block.attn.heads
        exact = torch.float64 if self.number_type == torch.float64 else torch.float32
        _, cosines, sines = rotary_tables(self.grid, dim, exact, self.pred.weight.device)
        return cosines[start:end], sines[start:end]
