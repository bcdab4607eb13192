"""FlexTok's two transformers (arXiv 2502.13967, section 2 and appendix): patches in, registers out, and back."""

from dataclasses import dataclass

import torch
from timm.layers.mlp import SwiGLU
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.dit_blocks import TimestepEmbedder, modulation
from tokenmark.contracts import MethodError

__all__ = ["FlexDecoder", "FlexEncoder", "FlexSize", "as_patches"]

TIME_PERIOD = 256.0
"""Longest period of the time's sinusoids (ml-flextok)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlexSize:
    """Sizes of one transformer."""

    dim: int
    depth: int
    head_dim: int = 64

    def __post_init__(self) -> None:
        if self.dim % self.head_dim:
            raise MethodError(f"dim {self.dim} is not a multiple of head_dim {self.head_dim}")


def as_patches(latents: Tensor, size: int) -> Tensor:
    """`(B, C, H, W)` to patches `(B, h*w, size*size*C)`, in the order (row, column, channel)."""
    rows, columns = latents.shape[2] // size, latents.shape[3] // size
    cells = latents.reshape(len(latents), latents.shape[1], rows, size, columns, size)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(len(latents), rows * columns, size * size * latents.shape[1])


def fixed_positions(dim: int, grid: int) -> Tensor:
    """Sines and cosines of the row, then of the column: `(1, dim, grid, grid)`, float32.

    Quirk: upstream means the column to come first, but lays its grid out the other way (the two axes are equal).
    """
    table = build_sincos2d_pos_embed([grid, grid], dim).reshape(grid, grid, 2, 2, dim // 4)
    return table.transpose(2, 3).flatten(2).permute(2, 0, 1).unsqueeze(0)


def _norm(dim: int) -> nn.LayerNorm:
    return nn.LayerNorm(dim, elementwise_affine=False)


class FlexAttention(nn.Module):
    """Self-attention with normalised queries and keys; its scale is muP's 8 / head_dim, not its root."""

    def __init__(self, size: FlexSize) -> None:
        super().__init__()
        self.head_dim = size.head_dim
        self.wq, self.wk, self.wv, self.proj = (nn.Linear(size.dim, size.dim, bias=False) for _ in range(4))
        self.norm = _norm(size.head_dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """`(B, L, D)` to the same; `mask` (bool, `(L, L)`) is true where a row may look."""
        query, key, value = (
            projection(x).unflatten(2, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.wq, self.wk, self.wv)
        )
        query, key = self.norm(query).to(value.dtype), self.norm(key).to(value.dtype)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=8.0 / self.head_dim)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class FlexBlock(nn.Module):
    """Attention and SwiGLU beside the input, no biases, and norms without weights of their own."""

    def __init__(self, size: FlexSize) -> None:
        super().__init__()
        self.norm = _norm(size.dim)
        self.attn = FlexAttention(size)
        self.mlp = SwiGLU(size.dim, int(2 * 4 * size.dim / 3), bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Tokens `(B, L, D)` to tokens; `mask` (bool, `(L, L)`) is true where a row may look."""
        x = x + self.attn(self.norm(x), mask)
        out: Tensor = x + self.mlp(self.norm(x))
        return out


class ModulatedFlexBlock(nn.Module):
    """The same with a condition that shifts, scales and gates patches and registers, each in their own way."""

    def __init__(self, size: FlexSize) -> None:
        super().__init__()
        self.norm = _norm(size.dim)
        self.attn = FlexAttention(size)
        self.mlp = SwiGLU(size.dim, int(2 * 4 * size.dim / 3), bias=False)
        self.adaLN_modulation = modulation(size.dim, 12)

    def forward(self, x: Tensor, condition: Tensor, patches: int) -> Tensor:
        """Tokens `(B, L, D)`, `patches` of them first, and a condition `(B, D)` to tokens."""
        parts = self.adaLN_modulation(condition).unflatten(1, (2, 6, -1)).unbind(2)
        gate1, gate2, shift1, scale1, shift2, scale2 = (Halves(part, patches, x.shape[1]) for part in parts)
        x = x + gate1(self.attn(shift1.after(scale1, self.norm(x)), None))
        return x + gate2(self.mlp(shift2.after(scale2, self.norm(x))))


class Halves:
    """One value per channel for patches, another for registers: `(B, 2, D)`, patches first."""

    def __init__(self, values: Tensor, patches: int, length: int) -> None:
        self.values = values
        self.lengths = (patches, length - patches)

    def __call__(self, x: Tensor) -> Tensor:
        """Both halves of `x` `(B, L, D)` times their values."""
        first, second = x.split(self.lengths, dim=1)
        return torch.cat([first * self.values[:, :1], second * self.values[:, 1:]], dim=1)

    def after(self, scale: "Halves", x: Tensor) -> Tensor:
        """Both halves of `x`, scaled by one more than `scale`, then shifted by this."""
        parts = x.split(self.lengths, dim=1)
        halves = [
            part * (1.0 + scale.values[:, half : half + 1]) + self.values[:, half : half + 1]
            for half, part in enumerate(parts)
        ]
        return torch.cat(halves, dim=1)


class FlexEncoder(nn.Module):
    """Latents of a VAE to as many vectors as there are registers; a register sees no later one.

    Args:
        size: Sizes of the transformer.
        patch_values: Values of a patch.
        grid: Patches of a side.
        registers: Number of registers.
        outputs: Channels of a vector.
    """

    mask: Tensor
    positions: Tensor

    def __init__(self, size: FlexSize, *, patch_values: int, grid: int, registers: int, outputs: int) -> None:
        super().__init__()
        self.patch_proj = nn.Linear(patch_values, size.dim)
        self.register_buffer("positions", fixed_positions(size.dim, grid))
        self.registers = nn.Parameter(torch.randn(registers, size.dim) / size.dim**0.5)
        self.blocks = nn.ModuleList(FlexBlock(size) for _ in range(size.depth))
        self.norm = _norm(size.dim)
        self.to_latents = nn.Linear(size.dim, outputs)
        patches = grid**2
        mask = torch.ones(patches + registers, patches + registers, dtype=torch.bool).tril()
        mask[:patches, :patches] = True
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        """Patches `(B, P, patch_values)` to `(B, N, outputs)`."""
        cells = self.patch_proj(patches) + self.positions.flatten(2).transpose(1, 2)
        x = torch.cat([cells, self.registers.to(cells.dtype).expand(len(cells), -1, -1)], dim=1)
        for block in self.blocks:
            x = block(x, self.mask)
        out: Tensor = self.to_latents(self.norm(x[:, cells.shape[1] :]))
        return out


class FlexDecoder(nn.Module):
    """The velocity of a rectified flow over a VAE's latents, told by registers what to show.

    Args:
        size: Sizes of the transformer.
        patch_values: Values of a patch.
        grid: Patches of a side.
        registers: Number of registers.
        inputs: Channels of a quantised vector.
        max_timestep: Times, which are in [0, 1], are multiplied by 1000 over this for their sinusoids.
    """

    positions: Tensor

    def __init__(
        self, size: FlexSize, *, patch_values: int, grid: int, registers: int, inputs: int, max_timestep: float
    ) -> None:
        super().__init__()
        dim = size.dim
        self.from_latents = nn.Linear(inputs, dim)
        self.register_positions = nn.Parameter(torch.randn(1, 1, dim, registers) * 0.02)
        self.mask_token, self.null_token = (nn.Parameter(torch.randn(dim) * 0.02) for _ in range(2))
        self.patch_proj = nn.Linear(patch_values, dim)
        self.register_buffer("positions", fixed_positions(dim, grid))
        self.time = TimestepEmbedder(dim, max_period=TIME_PERIOD, factor=1000.0 / max_timestep)
        self.blocks = nn.ModuleList(ModulatedFlexBlock(size) for _ in range(size.depth))
        self.norm = _norm(dim)
        self.adaLN_modulation = modulation(dim, 2)
        self.head = nn.Linear(dim, patch_values)

    def condition(self, quantized: Tensor, keep: Tensor | None = None) -> Tensor:
        """Registers `(B, N, D)` of quantised vectors `(B, n, inputs)`, n at most N.

        Those from `keep` (int64, `(B,)`) on, and those behind n, are the mask token, which has no position.
        """
        positions = self.register_positions.flatten(0, 2).T
        count, length = quantized.shape[1], len(positions)
        registers = self.from_latents(quantized) + positions[:count]
        registers = functional.pad(registers, (0, 0, 0, length - count))
        kept = count if keep is None else keep.clamp(max=count).unsqueeze(1)
        shown = torch.arange(length, device=registers.device) < kept
        return torch.where(shown.unsqueeze(-1), registers, self.mask_token.to(registers.dtype))

    def unconditional(self, registers: Tensor) -> Tensor:
        """Registers that tell nothing, of the shape of `registers`."""
        return self.null_token.to(registers.dtype).expand_as(registers)

    def forward(self, patches: Tensor, times: Tensor, registers: Tensor) -> Tensor:
        """The velocity `(B, P, patch_values)` at `patches`, at times `(B,)` in [0, 1], 1 being noise."""
        cells = self.patch_proj(patches) + self.positions.flatten(2).transpose(1, 2)
        count = cells.shape[1]
        condition = self.time(times)
        x = torch.cat([cells, registers.to(cells.dtype)], dim=1)
        for block in self.blocks:
            x = block(x, condition, count)
        shift, scale = self.adaLN_modulation(condition).unsqueeze(1).chunk(2, dim=2)
        out: Tensor = self.head(self.norm(x[:, :count]) * (1.0 + scale) + shift)
        return out
