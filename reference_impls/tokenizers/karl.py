"""KARL: one pass over the image says how many of the tokens it was given are needed."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from reference_impls.layers.adaptive_base import (
    BASE_RENAMES,
    RELEASED_BASES,
    BaseTokenizer,
    PatchDecoder,
    Transformer,
    drawn,
    shared_arguments,
)
from reference_impls.layers.gaussian import draw_noise
from reference_impls.layers.grid_vq import as_rows
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.quantizers import VectorQuantizer
from reference_impls.layers.titok_vit import VitSize
from reference_impls.layers.token_checks import LATENT_BITS, bits_of, check_codes, check_latents, need_noise
from reference_impls.layers.tokenizer import ImageTokenizer, codes_of, latents_of
from tokenmark.contracts import Layout, MethodError, Paper, TokenizerMethod, Tokens, Variant

__all__ = ["KARL", "METHOD", "Encoded", "release_arguments"]

TOKENS, GRID, HALTING_WIDTH = 512, 64, 512
"""Rows of the tables of tokens, side of those of positions, hidden channels of the halting head."""

LOSSES = (
    *(0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.09, 0.1),
    *(0.12, 0.14, 0.16, 0.18, 0.2, 0.24, 0.28, 0.32, 0.38),
)
"""The mean absolute differences that can be asked for."""

HALT = 0.75
"""A token whose halting probability is above this is left out."""


class Encoded(NamedTuple):
    """What the encoder gives for a budget of n tokens."""

    encoded: Tensor
    """Tokens before the bottleneck, `(B, n, D)`."""
    halt_logits: Tensor
    """`(B, n, 1)`."""
    keep: Tensor
    """Which tokens are needed, `(B, n)`."""
    codes: Tensor | None
    """`(B, n)`."""
    tokens: Tensor
    """What the decoder takes, `(B, n, D)`."""


class KARL(ImageTokenizer):
    """KARL (arXiv 2507.07995, section 3): tokens up to a budget, of which those that halt are not stored.

    The encoder is told which difference from the image will do. What is stored of an image: one bit for each token of
    the budget, whether it is kept, and the kept ones. So codes are `(B, n, 2)`, code and whether it is kept, and
    continuous tokens have one channel more, which is 1 or 0; what is left out is 0. `lengths` count the kept ones.

    Args:
        image_size: Side of the images, in pixels.
        patch_size: Side of a patch, in pixels: the base tokenizer's cell.
        base: Arguments of `BaseTokenizer`.
        encoder: `width`, `layers` and `heads`.
        decoder: The same.
        token_dim: Channels of a token.
        codebook_size: Number of codes; None where tokens stay continuous.
        max_tokens: The budget where no other is asked for.
        quality: Mean absolute difference from the image, in [0, 1], that will do; the next larger of `LOSSES` is asked.
    """

    variable_length = True

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        base: Mapping[str, Any],
        encoder: Mapping[str, int],
        decoder: Mapping[str, int],
        token_dim: int = 12,
        codebook_size: int | None = 4096,
        max_tokens: int = 256,
        quality: float = 0.05,
    ) -> None:
        super().__init__()
        if image_size % patch_size or image_size // patch_size > GRID:
            raise MethodError(f"image_size {image_size} must be 1 to {GRID} patches of {patch_size} pixels")
        if max_tokens > TOKENS:
            raise MethodError(f"there are tables for {TOKENS} tokens, not for {max_tokens}")
        self.image_size, self.grid, self.max_tokens = image_size, image_size // patch_size, max_tokens
        self.token_dim, self.quality = token_dim, quality
        width, other = encoder["width"], decoder["width"]
        sizes = [VitSize(**{"patch_size": patch_size, **part}) for part in (encoder, decoder)]
        self.encoder_positional_embedding = drawn(width, GRID, GRID)
        self.decoder_positional_embedding = drawn(other, GRID, GRID)
        self.decoder_mask_token = drawn(1, 1, other)
        self.decoder_latent_tokens_timestep_embed = drawn(TOKENS, other)
        self.latent_tokens = drawn(TOKENS, width)
        self.rec_loss_embeddings = drawn(len(LOSSES), width)
        self.encoder = Transformer(sizes[0])
        self.encoder_ln_pre, self.encoder_ln_post_halt, self.encoder_ln_post = (nn.LayerNorm(width) for _ in range(3))
        self.pre_quantizer_mlp = nn.Linear(width, token_dim)
        self.halting_mlp = nn.Sequential(nn.Linear(width, HALTING_WIDTH), nn.Tanh(), nn.Linear(HALTING_WIDTH, 1))
        self.base_tokenizer = BaseTokenizer(**base)
        self.decoder = PatchDecoder(sizes[1], self.base_tokenizer.outputs)
        self.decoder_embed = nn.Linear(token_dim, other)
        self.patch_embed = nn.Conv2d(3, width - self.base_tokenizer.channels, patch_size, stride=patch_size)
        self.quantize = None if codebook_size is None else VectorQuantizer(codebook_size, token_dim, l2_norm=True)
        self.stochastic = self.base_tokenizer.vqgan is None  # the VAE's latents are drawn

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The codebook's and 2, for whether a token is kept; none for continuous tokens."""
        return () if self.quantize is None else (self.quantize.codebook_size, 2)

    @property
    def bits_per_token(self) -> float:
        """Bits of a token that is kept, one of them to say so."""
        return self._bits_kept + 1.0

    @property
    def _bits_kept(self) -> float:
        return float(LATENT_BITS * self.token_dim) if self.quantize is None else bits_of(self.quantize.codebook_size)

    def _check_tokens(self, tokens: Tokens) -> None:
        if self.quantize is None:
            check_latents(tokens, self.max_tokens, self.token_dim + 1, variable=True)
        else:
            check_codes(tokens, self.codebook_sizes, self.max_tokens, variable=True)

    def _encode(self, images: Tensor, tokens: int | None, generator: torch.Generator | None) -> Tokens:
        noise, budget = None, tokens or self.max_tokens
        if self.stochastic:
            like = images.new_empty(len(images), self.base_tokenizer.channels, self.grid, self.grid)
            noise = draw_noise(like, need_noise(generator, "encode"))
        found = self.encode_tokens(images, self.base_tokenizer.latents(images, noise)[0], budget, self.quality)
        lengths = found.keep.sum(1)
        bits = lengths.double() * self._bits_kept + budget
        if found.codes is None:
            kept = torch.cat([found.encoded, torch.ones_like(found.encoded[..., :1])], dim=2)
            return Tokens(lengths=lengths, bits=bits, latents=torch.where(found.keep[..., None], kept, 0.0))
        codes = torch.stack([found.codes * found.keep, found.keep.long()], dim=2)
        return Tokens(lengths=lengths, bits=bits, codes=codes)

    def _decode(self, tokens: Tokens, generator: torch.Generator | None, text: Tensor | None) -> Tensor:  # noqa: ARG002
        if self.quantize is None:
            rows, keep = latents_of(tokens)[..., :-1], latents_of(tokens)[..., -1] > 0.5
        else:
            codes, kept = codes_of(tokens).unbind(2)
            rows, keep = self.quantize.lookup(codes), kept == 1
        return self.base_tokenizer.decode(self.predict(rows.to(self.number_type), keep), self.grid)

    def encode_tokens(self, images: Tensor, latents: Tensor, budget: int, quality: float) -> Encoded:
        """A budget of tokens for images `(B, 3, S, S)` in [0, 1] and the base tokenizer's `latents` `(B, C, h, w)`."""
        patches = torch.cat([self.patch_embed(images), latents], dim=1)
        patches = as_rows(patches + self._positions(self.encoder_positional_embedding))
        asked = self.rec_loss_embeddings[loss_index(quality)].expand(len(images), 1, -1)
        fresh = self.latent_tokens[:budget].expand(len(images), -1, -1)
        hidden = torch.cat([part.to(patches.dtype) for part in (asked, patches, fresh)], dim=1)
        features = self.encoder.run(self.encoder_ln_pre(hidden))[:, -budget:]
        encoded = self.pre_quantizer_mlp(self.encoder_ln_post(features))
        halt_logits = self.halting_mlp(self.encoder_ln_post_halt(features))
        keep = torch.sigmoid(at_least_float32(halt_logits)).squeeze(2) <= HALT
        if self.quantize is None:
            return Encoded(encoded, halt_logits, keep, None, encoded)
        codes = self.quantize(encoded).codes
        return Encoded(encoded, halt_logits, keep, codes, self.quantize.lookup(codes))

    def predict(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """What the base tokenizer decodes, `(B, h*w, O)`, of tokens `(B, n, D)`; those not kept are not seen."""
        positions = as_rows(self._positions(self.decoder_positional_embedding))
        masks = (self.decoder_mask_token + positions).expand(len(tokens), -1, -1)
        embedded = self.decoder_embed(tokens) + self.decoder_latent_tokens_timestep_embed[: tokens.shape[1]]
        seen = nn.functional.pad(keep, (self.grid**2, 0), value=True)[:, None, None]
        hidden = torch.cat([masks.to(embedded.dtype), embedded], dim=1)
        return self.decoder.patches(hidden, seen, slice(0, self.grid**2))

    def _positions(self, table: Tensor) -> Tensor:
        """The nearest of a table `(width, 64, 64)` for each cell of the grid, `(1, width, h, w)`."""
        return nn.functional.interpolate(table[None], size=(self.grid, self.grid), mode="nearest")


def loss_index(quality: float) -> int:
    """The place in `LOSSES` of the first that is not smaller, or the last; compared in float32, as in the release."""
    place = np.searchsorted(np.asarray(LOSSES, np.float32), np.float32(quality))
    return min(int(place), len(LOSSES) - 1)


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `KARL` for the release's configuration, with its parts' sizes spelled out."""
    return {
        **shared_arguments(config),
        "max_tokens": config["num_init_latent_tokens"] * config["max_rollout_iters"],
    }


def _variant(base: str, *, quantized: bool) -> Variant:
    size = {"width": 1024, "layers": 8, "heads": 8}
    config = {
        "image_size": 256,
        "patch_size": 16,
        "base": RELEASED_BASES[base],
        "encoder": size,
        "decoder": size,
        "codebook_size": 4096 if quantized else None,
    }
    return Variant(config=config, note="the authors keep their weights on Dropbox")


METHOD = TokenizerMethod(
    id="karl",
    title="KARL",
    idea="Told how good is good enough, one pass marks the tokens that the image does not need",
    paper=Paper(
        title="Single-pass Adaptive Image Tokenization for Minimum Program Search",
        authors="Shivam Duggal, Sanghyun Byun, William T. Freeman, Antonio Torralba, Phillip Isola",
        year=2025,
        url="https://arxiv.org/abs/2507.07995",
    ),
    build=KARL,
    from_release=release_arguments,
    # Discriminators and perceptual networks are in the files of finished training.
    layout=Layout(wrappers=("ema",), ignored=("gan_losses.",), renames=BASE_RENAMES),
    variants={
        "small-vqgan-quantized": _variant("vqgan", quantized=True),
        "small-vqgan-continuous": _variant("vqgan", quantized=False),
        "small-vae-quantized": _variant("vae", quantized=True),
        "small-vae-continuous": _variant("vae", quantized=False),
    },
)
