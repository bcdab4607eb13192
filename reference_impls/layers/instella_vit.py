"""The transformers of Instella-T2I's tokenizer (arXiv 2506.21022), whose image tokens change their resolution."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from timm.layers.mlp import SwiGLU
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.layers.precision import at_least_float32

__all__ = ["InstellaDecoder", "InstellaEncoder", "InstellaSize", "RotaryAxes"]

EPS = 1e-6
THETA = 10000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstellaSize:
    """Sizes of one transformer."""

    layers: int
    heads: int
    head_dim: int
    resampled: Sequence[int]
    """Indices of the blocks behind which image tokens are halved (encoder) or doubled (decoder) per side."""

    @property
    def width(self) -> int:
        """Channels of the tokens."""
        return self.heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class RotaryAxes:
    """Rotary positions on three axes: a latent token's number, an image token's row, and its column."""

    dims: Sequence[int]
    """Channels of a head per axis; even, and in sum all of them."""
    span: float | None
    """Positions over which the rows and columns of the finest grid are spread; None for one each."""

    def table(self, latents: int, grid: tuple[int, int], halvings: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines `(latents + h*w, head_dim)` for a grid that was halved so many times.

        In float32 at least. The official scripts run in bfloat16, which rounds the positions of long grids.
        """
        dtype = at_least_float32(like[:0]).dtype
        numbers = torch.arange(latents, device=like.device, dtype=dtype)
        rows, columns = (self._places(count, halvings, numbers) for count in grid)
        image = torch.cartesian_prod(rows, columns)
        places = [
            torch.cat([numbers, numbers.new_zeros(len(image))]),
            *(torch.cat([torch.zeros_like(numbers), axis]) for axis in image.unbind(1)),
        ]
        angles = torch.cat([_angles(place, dim) for place, dim in zip(places, self.dims, strict=True)], dim=1)
        return angles.cos().to(like.dtype), angles.sin().to(like.dtype)

    def _places(self, count: int, halvings: int, like: Tensor) -> Tensor:
        steps = torch.arange(count, device=like.device, dtype=like.dtype)
        if self.span is None:
            return steps
        span = self.span // 2**halvings if halvings else self.span
        return steps / max(count - 1, 1) * (span - 1)


def _angles(places: Tensor, dim: int) -> Tensor:
    """`(L, dim)`, every frequency twice in a row."""
    exponents = torch.arange(0, dim, 2, device=places.device, dtype=places.dtype) / dim
    frequencies: Tensor = THETA**-exponents
    return torch.outer(places, frequencies).repeat_interleave(2, dim=1)


def _rotated(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    # Quirk of the release: the tables hold frequencies in interleaved pairs, and the rotation pairs a channel of the
    # first half with one of the second. The weights have learned it.
    first, second = x.chunk(2, dim=-1)
    return x * table[0] + torch.cat([-second, first], dim=-1) * table[1]


class RMSNorm(nn.RMSNorm):
    """The root mean square, in float32 at least as in the release; what comes out has the type of what came in."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., width)` to the same shape."""
        wide = at_least_float32(x)
        return functional.rms_norm(wide, (wide.shape[-1],), self.weight.to(wide.dtype), self.eps).to(x.dtype)


class Attention(nn.Module):
    """Self-attention without biases; queries and keys are normalised per head and rotated."""

    def __init__(self, size: InstellaSize) -> None:
        super().__init__()
        self.heads = size.heads
        width = size.width
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(size.head_dim), RMSNorm(size.head_dim)

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        """`(B, L, width)` to the same shape."""
        query, key, value = (
            projection(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        query, key = (_rotated(part, table).to(value.dtype) for part in (self.norm_q(query), self.norm_k(key)))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Pre-norm residual block."""

    def __init__(self, size: InstellaSize) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(size.width)
        self.attn = Attention(size)
        self.post_attention_layernorm = RMSNorm(size.width)
        self.mlp = SwiGLU(size.width, 4 * size.width, bias=False)

    def forward(self, x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        """`(B, L, width)` to the same shape."""
        x = x + self.attn(self.input_layernorm(x), table)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Down(nn.Module):
    """A strided convolution beside 2x2 averages."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, C, H/2, W/2)`."""
        out: Tensor = self.conv(x) + functional.avg_pool2d(x, 2)
        return out


class Up(nn.Module):
    """A convolution whose channels become 2x2 pixels, beside nearest-neighbour doubling."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, 4 * width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, C, 2H, 2W)`."""
        doubled = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return functional.pixel_shuffle(self.conv(x), 2) + doubled


class Stack(nn.Module):
    """Blocks over latent and image tokens, the image's grid resampled on the way."""

    def __init__(self, size: InstellaSize, rope: RotaryAxes) -> None:
        super().__init__()
        self.size, self.rope = size, rope
        self.transformer_blocks = nn.ModuleList(Block(size) for _ in range(size.layers))

    def run(
        self, latents: Tensor, image: Tensor, resamplers: nn.ModuleList, halvings: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Latent tokens `(B, N, C)` and an image `(B, C, h, w)` through all blocks, `halvings` telling every grid."""
        count, stage = latents.shape[1], 0
        hidden = torch.cat([latents, as_rows(image).to(latents.dtype)], dim=1)
        grid = (image.shape[2], image.shape[3])
        table = self.rope.table(count, grid, halvings[stage], hidden)
        for index, block in enumerate(self.transformer_blocks):
            hidden = block(hidden, table)
            if index in self.size.resampled:
                image = resamplers[stage](as_grid(hidden[:, count:], *grid))
                stage, grid = stage + 1, (image.shape[2], image.shape[3])
                hidden = torch.cat([hidden[:, :count], as_rows(image).to(hidden.dtype)], dim=1)
                table = self.rope.table(count, grid, halvings[stage], hidden)
        return hidden[:, :count], as_grid(hidden[:, count:], *grid)


class InstellaEncoder(Stack):
    """Images to latent tokens.

    Args:
        size: Sizes of the transformer.
        rope: Its positions.
        patch_size: Side of a patch, in pixels.
        num_latent_tokens: Number of latent tokens, N.
    """

    def __init__(self, size: InstellaSize, rope: RotaryAxes, *, patch_size: int, num_latent_tokens: int) -> None:
        super().__init__(size, rope)
        self.latent_tokens = nn.Parameter(0.02 * torch.randn(1, num_latent_tokens, size.width))
        self.patch_embedder = nn.Conv2d(3, size.width, patch_size, stride=patch_size)
        self.down_layers = nn.ModuleList(Down(size.width) for _ in size.resampled)
        self.norm_out = RMSNorm(size.width)
        self.proj_out = nn.Linear(size.width, size.width)

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 3, H, W)` to latents `(B, N, width)`."""
        patches = self.patch_embedder(images)
        latents = self.latent_tokens.expand(len(images), -1, -1)
        latents, _ = self.run(latents, patches, self.down_layers, range(len(self.down_layers) + 1))
        out: Tensor = self.proj_out(self.norm_out(latents))
        return out


class InstellaDecoder(Stack):
    """Latent tokens to image tokens.

    Args:
        size: Sizes of the transformer.
        rope: Its positions.
        inputs: Channels of the latents.
    """

    def __init__(self, size: InstellaSize, rope: RotaryAxes, *, inputs: int) -> None:
        super().__init__(size, rope)
        self.mask_tokens = nn.Parameter(0.02 * torch.randn(1, 1, size.width))
        self.input_layer = nn.Sequential(RMSNorm(inputs), nn.Linear(inputs, size.width))
        self.up_layers = nn.ModuleList(Up(size.width) for _ in size.resampled)
        self.norm_out = RMSNorm(size.width)

    def forward(self, latents: Tensor, grid: tuple[int, int]) -> Tensor:
        """Latents `(B, N, inputs)` to image tokens `(B, h*w, width)` on a grid `(h, w)`, in row-major order."""
        stages = len(self.up_layers)
        # The release starts from grid / (2 * stages), which is the same for one stage and for two.
        height, width = (side // 2**stages for side in grid)
        masks = self.mask_tokens.transpose(1, 2).unsqueeze(3).expand(len(latents), -1, height, width)
        _, image = self.run(self.input_layer(latents), masks, self.up_layers, range(stages, -1, -1))
        out: Tensor = self.norm_out(as_rows(image))
        return out
