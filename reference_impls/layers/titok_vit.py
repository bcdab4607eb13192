"""The vision transformers of TiTok (arXiv 2406.07550, section 3.2), under the release's key names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SIZES", "Block", "TiTokDecoder", "TiTokEncoder", "VitSize"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VitSize:
    """Sizes of one transformer."""

    width: int
    layers: int
    heads: int
    patch_size: int
    mlp_ratio: float = 4.0


SIZES: Mapping[str, Mapping[str, Any]] = {
    "small": {"width": 512, "layers": 8, "heads": 8},
    "base": {"width": 768, "layers": 12, "heads": 12},
    "large": {"width": 1024, "layers": 24, "heads": 16},
}
"""The three released sizes (section 4.1)."""


class Attention(nn.Module):
    """Self-attention with the keys of `nn.MultiheadAttention`, through the fused kernel in training too."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B, L, width)` to the same shape; who sees whom is True in `mask`, broadcast to `(B, heads, L, L)`."""
        batch, length, width = x.shape
        packed = functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = packed.reshape(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return out


class Mlp(nn.Module):
    """Linear, exact GELU (or `activation`), Linear."""

    def __init__(self, width: int, hidden: int, activation: Callable[[Tensor], Tensor] = functional.gelu) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """`(B, L, width)` to the same shape."""
        out: Tensor = self.c_proj(self.activation(self.c_fc(x)))
        return out


class Block(nn.Module):
    """Pre-norm residual block, with the keys of OpenAI's CLIP."""

    def __init__(self, size: VitSize, activation: Callable[[Tensor], Tensor] = functional.gelu) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(size.width)
        self.attn = Attention(size.width, size.heads)
        self.ln_2 = nn.LayerNorm(size.width)
        self.mlp = Mlp(size.width, int(size.width * size.mlp_ratio), activation)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B, L, width)` to the same shape; `mask` as in `Attention`."""
        x = x + self.attn(self.ln_1(x), mask)
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


def _embedding(*shape: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(*shape), std=shape[-1] ** -0.5))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class TiTokEncoder(nn.Module):
    """Patches and latent tokens through one transformer; the latent tokens come out (eq. 1).

    Args:
        size: Sizes of the transformer.
        image_size: Side of the images, in pixels.
        num_latent_tokens: Number of latent tokens, N.
        out_channels: Channels of each latent: token size, or twice that for a Gaussian bottleneck.
        legacy: Mix tokens and channels before the last projection, as the first releases do.
    """

    def __init__(
        self, size: VitSize, *, image_size: int, num_latent_tokens: int, out_channels: int, legacy: bool
    ) -> None:
        super().__init__()
        self.legacy = legacy
        patches = (image_size // size.patch_size) ** 2
        self.class_embedding = _embedding(1, size.width)
        self.positional_embedding = _embedding(patches + 1, size.width)
        self.latent_token_positional_embedding = _embedding(num_latent_tokens, size.width)
        self.patch_embed = nn.Conv2d(3, size.width, size.patch_size, stride=size.patch_size)
        self.ln_pre = nn.LayerNorm(size.width)
        self.transformer = nn.Sequential(*(Block(size) for _ in range(size.layers)))
        self.ln_post = nn.LayerNorm(size.width)
        self.conv_out = nn.Conv2d(size.width, out_channels, 1)
        self.apply(_initialise)

    def forward(self, images: Tensor, latent_tokens: Tensor) -> Tensor:
        """Images `(B, 3, S, S)` and learned tokens `(N, width)` to latents `(B, out_channels, 1, N)`."""
        batch, count = len(images), len(latent_tokens)
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)
        start = self.class_embedding.expand(batch, -1, -1).to(patches.dtype)
        image_part = torch.cat([start, patches], dim=1) + self.positional_embedding
        latent_part = (latent_tokens + self.latent_token_positional_embedding).expand(batch, -1, -1)
        hidden = self.ln_pre(torch.cat([image_part, latent_part.to(image_part.dtype)], dim=1))
        latents = self.ln_post(self.transformer(hidden)[:, -count:])
        # Quirk of the first releases (blocks.py:286-292): (B, N, W) is read as (B, W, N, 1) without a
        # permutation, which mixes channels and tokens in a fixed way. The weights have learned it.
        grid = (
            latents.reshape(batch, latents.shape[2], count, 1) if self.legacy else latents.transpose(1, 2).unsqueeze(3)
        )
        return torch.as_tensor(self.conv_out(grid)).transpose(2, 3)


class TiTokDecoder(nn.Module):
    """Mask tokens and quantised latents through one transformer; the mask tokens come out (eq. 2).

    Args:
        size: Sizes of the transformer; its `patch_size` sets the grid.
        image_size: Side of the images, in pixels.
        num_latent_tokens: The most latent tokens that it takes.
        token_size: Channels of each latent.
        pixel_codes: Size of the pixel codebook whose logits it gives (legacy), or None where it gives pixels.
        text: Tokens and channels of text features that it is given too (TA-TiTok, arXiv 2501.07730, section 3.2).
    """

    def __init__(
        self,
        size: VitSize,
        *,
        image_size: int,
        num_latent_tokens: int,
        token_size: int,
        pixel_codes: int | None,
        text: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        self.grid = image_size // size.patch_size
        self.gives_logits = pixel_codes is not None
        self.class_embedding = _embedding(1, size.width)
        self.positional_embedding = _embedding(self.grid**2 + 1, size.width)
        self.mask_token = _embedding(1, 1, size.width)
        self.latent_token_positional_embedding = _embedding(num_latent_tokens, size.width)
        self.decoder_embed = nn.Linear(token_size, size.width)
        self.ln_pre = nn.LayerNorm(size.width)
        self.transformer = nn.Sequential(*(Block(size) for _ in range(size.layers)))
        self.ln_post = nn.LayerNorm(size.width)
        if pixel_codes is not None:
            head = [nn.Conv2d(size.width, 2 * size.width, 1), nn.Tanh(), nn.Conv2d(2 * size.width, pixel_codes, 1)]
            self.ffn, self.conv_out = nn.Sequential(*head), None
        else:
            self.ffn = nn.Sequential(nn.Conv2d(size.width, 3 * size.patch_size**2, 1))
            self.conv_out = nn.Conv2d(3, 3, 3, padding=1)
        if text is not None:
            self.text_guidance_proj = nn.Linear(text[1], size.width)
            self.text_guidance_positional_embedding = _embedding(text[0], size.width)
        self.apply(_initialise)

    def forward(self, latents: Tensor, text: Tensor | None = None) -> Tensor:
        """Latents `(B, n, token_size)` to logits `(B, pixel_codes, g, g)` or images `(B, 3, S, S)`, not clamped.

        With fewer latents than it was built for, the sequence is shorter: nothing stands in for the rest.
        `text` features `(B, tokens, channels)` come last in the sequence.
        """
        batch, count, _ = latents.shape
        embedded = self.decoder_embed(latents)
        embedded = embedded + self.latent_token_positional_embedding[:count]
        masks = self.mask_token.expand(batch, self.grid**2, -1)
        start = self.class_embedding.expand(batch, -1, -1)
        image_part = torch.cat([start, masks], dim=1) + self.positional_embedding
        parts = [image_part.to(embedded.dtype), embedded]
        if text is not None:
            parts.append(self.text_guidance_proj(text) + self.text_guidance_positional_embedding)
        hidden = self.ln_pre(torch.cat(parts, dim=1))
        patches = self.ln_post(self.transformer(hidden)[:, 1 : 1 + self.grid**2])
        out: Tensor = self.ffn(patches.transpose(1, 2).reshape(batch, self.size.width, self.grid, self.grid))
        return out if self.conv_out is None else torch.as_tensor(self.conv_out(self._pixels(out)))

    def _pixels(self, channels: Tensor) -> Tensor:
        """Patches laid out as images: a channel index reads (row in the patch, column in the patch, colour)."""
        batch, patch, grid = len(channels), self.size.patch_size, self.grid
        patches = channels.reshape(batch, patch, patch, 3, grid, grid).permute(0, 3, 4, 1, 5, 2)
        return patches.reshape(batch, 3, grid * patch, grid * patch)
