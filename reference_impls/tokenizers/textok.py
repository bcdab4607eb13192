"""TexTok: a one-dimensional tokenizer whose encoder and decoder both read a caption of the image.

No release: built from the paper. Text enters as features of a frozen T5 encoder (XL at 256 pixels, XXL at 512), which
is no part of this model: `encode` and `decode` are given the same features. What the paper leaves open, and what was
taken:

- patches: 16 pixels at both resolutions, as in TiTok, which this network extends;
- text: 128 tokens, padded ones included and not masked; encoder and decoder project it on their own;
- places: learned, for patches and latent tokens and for text as well; no class token; a norm at the end of each side;
- pixels: a linear map of each patch, in [-1, 1] inside;
- latents: 8 channels as the encoder gives them; no Gaussian, for the paper's loss has no KL term;
- counts at 512 pixels: those that are printed for 256.

The paper's gains are over the same network without text: the variants `-plain`, which need none.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.titok_vit import SIZES, VitSize
from reference_impls.layers.token_checks import (
    LATENT_BITS,
    check_images,
    check_latents,
    check_length,
    check_text,
    pack_latents,
)
from reference_impls.layers.tokenizer import ImageTokenizer, from_signed, latents_of, to_signed
from tokenmark.contracts import MethodError, Paper, TokenizerMethod, Tokens, Variant

__all__ = ["METHOD", "TexTok"]

SIDES = ("encoder", "decoder")


class Stack(nn.Module):
    """A vision transformer over one kind of tokens, latent tokens and, where it is told of it, text.

    Args:
        size: Sizes of the transformer.
        grid: Number of patches.
        latents: Number of latent tokens.
        text: Tokens and channels of the text; None where it is not told any.
    """

    def __init__(self, size: VitSize, grid: int, latents: int, text: tuple[int, int] | None) -> None:
        super().__init__()
        self.positions = _table(grid + latents + (text[0] if text else 0), size.width)
        self.text_proj = nn.Linear(text[1], size.width) if text else None
        self.blocks = nn.Sequential(
            *(Block(size.width, size.heads, size.mlp_ratio, qkv_bias=True) for _ in range(size.layers))
        )
        self.norm = nn.LayerNorm(size.width)

    def forward(self, patches: Tensor, latents: Tensor, text: Tensor | None) -> Tensor:
        """`(B, P, width)`, `(B, N, width)` and `(B, T, channels)` to `(B, P + N + T, width)`, in this order."""
        parts = [patches, latents]
        if self.text_proj is not None and text is not None:
            parts.append(self.text_proj(text.to(self.text_proj.weight.dtype)))
        joined = torch.cat([part.to(patches.dtype) for part in parts], dim=1)
        hidden: Tensor = self.norm(self.blocks(joined + self.positions))
        return hidden


def _table(count: int, width: int) -> nn.Parameter:
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(count, width), std=0.02))


class TexTok(ImageTokenizer):
    """TexTok (arXiv 2412.05796).

    Args:
        image_size: Side of the images, in pixels; a multiple of both patch sizes.
        encoder: Fields of `VitSize`.
        decoder: Fields of `VitSize`.
        num_latent_tokens: Number of latent tokens, N.
        token_size: Channels of each, d.
        text: Tokens and channels of the text features.
        told: The sides that are told the text: "encoder", "decoder", both or none of them (the paper's ablation).
    """

    def __init__(
        self,
        *,
        image_size: int,
        encoder: Mapping[str, Any],
        decoder: Mapping[str, Any],
        num_latent_tokens: int,
        token_size: int = 8,
        text: tuple[int, int] = (128, 2048),
        told: Collection[str] = SIDES,
    ) -> None:
        super().__init__()
        sizes = VitSize(**encoder), VitSize(**decoder)
        for size in sizes:
            if image_size % size.patch_size:
                raise MethodError(f"image_size {image_size} is not a multiple of the patch size {size.patch_size}")
        if not set(told) <= set(SIDES):
            raise MethodError(f"told must be of {', '.join(SIDES)}, got {', '.join(sorted(told))}")
        features = int(text[0]), int(text[1])
        self.image_size, self.max_tokens, self.token_size = image_size, num_latent_tokens, token_size
        self.encoder_text, self.decoder_text = (features if side in told else None for side in SIDES)
        self.text = self.decoder_text
        grids = [image_size // size.patch_size for size in sizes]
        self.grid, self.patch_size = grids[1], sizes[1].patch_size
        self.patch_embed = nn.Conv2d(3, sizes[0].width, sizes[0].patch_size, stride=sizes[0].patch_size)
        self.latent_tokens = _table(num_latent_tokens, sizes[0].width)
        self.encoder = Stack(sizes[0], grids[0] ** 2, num_latent_tokens, self.encoder_text)
        self.to_latents = nn.Linear(sizes[0].width, token_size)
        self.from_latents = nn.Linear(token_size, sizes[1].width)
        self.patch_tokens = _table(grids[1] ** 2, sizes[1].width)
        self.decoder = Stack(sizes[1], grids[1] ** 2, num_latent_tokens, self.decoder_text)
        self.to_pixels = nn.Linear(sizes[1].width, 3 * self.patch_size**2)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """There are none."""
        return ()

    @property
    def bits_per_token(self) -> float:
        """The channels as float32; the text is not counted."""
        return float(LATENT_BITS * self.token_size)

    @torch.no_grad()
    def encode(
        self,
        images: Tensor,
        tokens: int | None = None,
        generator: torch.Generator | None = None,  # noqa: ARG002
        text: Tensor | None = None,
    ) -> Tokens:
        """Tokens of images `(B, 3, S, S)` in [0, 1] and their `text` features `(B, tokens, channels)`.

        Raises MethodError for other images, another length, and where the encoder needs a text and has none.
        """
        check_images(images, self.image_size)
        check_length(tokens, self.max_tokens, variable=False)
        if self.encoder_text is not None:
            if text is None:
                shape = (len(images), *self.encoder_text)
                raise MethodError(f"this encoder is told in text what the image shows: give encode() {shape} features")
            text = check_text(text, len(images), *self.encoder_text)
        return pack_latents(at_least_float32(self.encode_latents(images, text)))

    def encode_latents(self, images: Tensor, text: Tensor | None) -> Tensor:
        """Differentiable: latents `(B, N, d)` of images in [0, 1] and text features `(B, T, channels)`."""
        patches = self.patch_embed(to_signed(images.to(self.number_type))).flatten(2).transpose(1, 2)
        hidden = self.encoder(patches, self.latent_tokens.expand(len(images), -1, -1), text)
        count = patches.shape[1]
        latents: Tensor = self.to_latents(hidden[:, count : count + self.max_tokens])
        return latents

    def decode_latents(self, latents: Tensor, text: Tensor | None) -> Tensor:
        """Differentiable: images in [0, 1], not clamped, of latents `(B, N, d)` and text features."""
        embedded = self.from_latents(latents.to(self.number_type))
        hidden = self.decoder(self.patch_tokens.expand(len(latents), -1, -1), embedded, text)
        pixels = at_least_float32(self.to_pixels(hidden[:, : self.grid**2]))
        cells = pixels.unflatten(1, (self.grid, self.grid)).unflatten(3, (3, self.patch_size, self.patch_size))
        return from_signed(cells.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3))

    def _check_tokens(self, tokens: Tokens) -> None:
        check_latents(tokens, self.max_tokens, self.token_size)

    def _decode(self, tokens: Tokens, generator: torch.Generator | None, text: Tensor | None) -> Tensor:  # noqa: ARG002
        return self.decode_latents(latents_of(tokens), text)


NO_RELEASE = "no release: built from the paper; the module's docstring says what it leaves open"
T5_WIDTHS = {256: 2048, 512: 4096}
"""Channels of T5-XL and T5-XXL, by image size."""


def _variant(image_size: int, tokens: int, told: Collection[str]) -> Variant:
    size = {**SIZES["base"], "patch_size": 16}
    config: dict[str, Any] = {"image_size": image_size, "encoder": size, "decoder": size, "num_latent_tokens": tokens}
    note = NO_RELEASE if told else f"{NO_RELEASE}; the same network without text"
    return Variant(config={**config, "text": (128, T5_WIDTHS[image_size]), "told": told}, note=note)


METHOD = TokenizerMethod(
    id="textok",
    title="TexTok",
    idea="A caption tells encoder and decoder what the image shows, so that the tokens are left for its details",
    paper=Paper(
        title="Language-Guided Image Tokenization for Generation",
        authors="Kaiwen Zha, Lijun Yu, Alireza Fathi, David A. Ross, Cordelia Schmid, Dina Katabi, Xiuye Gu",
        year=2025,
        url="https://arxiv.org/abs/2412.05796",
    ),
    build=TexTok,
    variants={
        f"{image_size}-{tokens}{suffix}": _variant(image_size, tokens, told)
        for suffix, told in (("", SIDES), ("-plain", ()))
        for image_size in T5_WIDTHS
        for tokens in (32, 64, 128, 256)
    },
)
