"""The masked autoencoder that tells MAR's generators what a masked latent may be (arXiv 2406.11838)."""

from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

__all__ = ["EPS", "MarBackbone", "table"]

EPS = 1e-6


class MarBackbone(nn.Module):
    """An encoder of the visible latents and a decoder of all of them, under the release's key names.

    Both see `buffer_size` tokens in front, which the encoder begins with the condition, and which are never masked.

    Args:
        length: Latents of an image, N.
        channels: Channels of a latent, C.
        classes: Number of classes.
        buffer_size: Number of tokens in front.
        encoder_dim: Width of the encoder.
        encoder_depth: Its blocks.
        encoder_heads: Attention heads of each.
        decoder_dim: Width of the decoder, D.
        decoder_depth: Its blocks.
        decoder_heads: Attention heads of each.
    """

    def __init__(
        self,
        *,
        length: int,
        channels: int,
        classes: int,
        buffer_size: int,
        encoder_dim: int,
        encoder_depth: int,
        encoder_heads: int,
        decoder_dim: int,
        decoder_depth: int,
        decoder_heads: int,
    ) -> None:
        super().__init__()
        self.length, self.buffer_size = length, buffer_size
        norm: Any = partial(nn.LayerNorm, eps=EPS)
        block = partial(Block, qkv_bias=True, norm_layer=norm)
        self.class_emb = nn.Embedding(classes, encoder_dim)
        self.fake_latent = table(1, encoder_dim)
        self.z_proj = nn.Linear(channels, encoder_dim)
        self.z_proj_ln = nn.LayerNorm(encoder_dim, eps=EPS)
        self.encoder_pos_embed_learned = table(1, buffer_size + length, encoder_dim)
        self.encoder_blocks = nn.ModuleList(block(encoder_dim, encoder_heads) for _ in range(encoder_depth))
        self.encoder_norm = nn.LayerNorm(encoder_dim, eps=EPS)
        self.decoder_embed = nn.Linear(encoder_dim, decoder_dim)
        self.mask_token = table(1, 1, decoder_dim)
        self.decoder_pos_embed_learned = table(1, buffer_size + length, decoder_dim)
        self.decoder_blocks = nn.ModuleList(block(decoder_dim, decoder_heads) for _ in range(decoder_depth))
        self.decoder_norm = nn.LayerNorm(decoder_dim, eps=EPS)
        self.output_pos_embed = table(1, length, decoder_dim)

    def conditions(self, labels: Tensor) -> Tensor:
        """Class embeddings `(B, W)` of `labels` `(B,)`; the class that is dropped has `fake_latent`."""
        out: Tensor = self.class_emb(labels)
        return out

    def encode_visible(self, latents: Tensor, visible: Tensor, conditions: Tensor) -> Tensor:
        """The buffer and the visible ones of latents `(B, N, C)`, encoded: `(B, buffer_size + n, W)`.

        `visible` int64 `(B, n)` are their places, `conditions` `(B, W)` what the buffer begins with.
        """
        shown = self.z_proj(latents.gather(1, _wide(visible, latents.shape[2])))
        places = self.encoder_pos_embed_learned[0]
        buffer = conditions.unsqueeze(1) + places[: self.buffer_size]
        x = self.z_proj_ln(torch.cat([buffer, shown + places[self.buffer_size :][visible]], dim=1))
        for block in self.encoder_blocks:
            x = block(x)
        out: Tensor = self.encoder_norm(x)
        return out

    def decode_all(self, encoded: Tensor, visible: Tensor) -> Tensor:
        """What `encode_visible` gave to features `(B, N, D)` of all latents, the masked ones too."""
        x = self.decoder_embed(encoded)
        buffer, shown = x[:, : self.buffer_size], x[:, self.buffer_size :]
        masked = self.mask_token.to(x.dtype).expand(len(x), self.length, -1)
        x = torch.cat([buffer, masked.scatter(1, _wide(visible, x.shape[2]), shown)], dim=1)
        x = x + self.decoder_pos_embed_learned
        for block in self.decoder_blocks:
            x = block(x)
        out: Tensor = self.decoder_norm(x)[:, self.buffer_size :] + self.output_pos_embed
        return out

    def features(self, latents: Tensor, visible: Tensor, conditions: Tensor) -> Tensor:
        """Features `(B, N, D)` of latents `(B, N, C)`, of which the `visible` `(B, n)` are looked at."""
        return self.decode_all(self.encode_visible(latents, visible, conditions), visible)


def table(*shape: int) -> nn.Parameter:
    """A learned table, its values drawn with standard deviation 0.02."""
    return nn.Parameter(nn.init.normal_(torch.empty(shape), std=0.02))


def _wide(places: Tensor, width: int) -> Tensor:
    """Places `(B, n)` once for each of `width` channels."""
    return places.unsqueeze(-1).expand(-1, -1, width)
