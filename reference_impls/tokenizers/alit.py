"""ALIT: tokens are added in rounds until the image is told well enough."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.adaptive_base import (
    BASE_RENAMES,
    RELEASED_BASES,
    BaseTokenizer,
    PatchDecoder,
    Transformer,
    drawn,
    shared_arguments,
)
from reference_impls.layers.gaussian import draw_noise, draw_uniform
from reference_impls.layers.grid_vq import as_rows
from reference_impls.layers.quantizers import VectorQuantizer
from reference_impls.layers.titok_vit import VitSize
from reference_impls.layers.token_checks import (
    LATENT_BITS,
    bits_of,
    check_codes,
    check_latents,
    need_noise,
    pack_codes,
    pack_latents,
)
from reference_impls.layers.tokenizer import ImageTokenizer, codes_of, latents_of
from tokenmark.contracts import Layout, MethodError, Paper, TokenizerMethod, Tokens, Variant

__all__ = ["ALIT", "METHOD", "Round", "first_below", "release_arguments"]

DECODER_POSITIONS = 256
"""Rows of the decoder's table of token positions, however many tokens there are."""


class Round(NamedTuple):
    """What one round gives."""

    features: Tensor
    """The encoder's output without its class token, `(B, h*w + n, width)`."""
    encoded: Tensor
    """Tokens before the bottleneck, `(B, n, D)`."""
    codes: Tensor | None
    """`(B, n)`."""
    tokens: Tensor
    """What the decoder takes, `(B, n, D)`."""
    predicted: Tensor
    """What the base tokenizer decodes, `(B, h*w, O)`."""
    images: Tensor
    """`(B, 3, S, S)`, not clamped."""


class Decoder(PatchDecoder):
    """Mask tokens and latent tokens through a transformer; the mask tokens come out."""

    def __init__(self, size: VitSize, token_dim: int, outputs: int) -> None:
        super().__init__(size, outputs)
        self.latent_token_positional_embedding = drawn(DECODER_POSITIONS, size.width)
        self.decoder_embed = nn.Linear(token_dim, size.width)

    def predict(self, start: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Class and mask tokens `(1 + h*w, width)` and tokens `(B, n, D)` to `(B, h*w, outputs)`."""
        embedded = self.decoder_embed(tokens) + self.latent_token_positional_embedding[: tokens.shape[1]]
        hidden = torch.cat([start.expand(len(tokens), -1, -1).to(embedded.dtype), embedded], dim=1)
        return self.patches(hidden, mask, slice(1, len(start)))


class ALIT(ImageTokenizer):
    """ALIT (arXiv 2411.02393, section 3): rounds of an encoder, each with more tokens, over patches and base latents.

    Every round appends the same learned tokens and reads image and all tokens again. The code of an image is that of
    the first round whose image differs from it by less than `select_threshold`, or else of the nearest one: chosen for
    each image, as the release does it at batch 1 (it takes one round for a whole batch). `encode(images, tokens=k)`
    chooses among the rounds of no more than k tokens.

    Args:
        image_size: Side of the images, in pixels.
        patch_size: Side of a patch, in pixels: the base tokenizer's cell.
        base: Arguments of `BaseTokenizer`.
        encoder: `width`, `layers` and `heads`.
        decoder: The same.
        token_dim: Channels of a token.
        codebook_size: Number of codes; None where tokens stay continuous.
        init_tokens: Tokens of a round.
        rounds: The most rounds.
        halting_threshold: Probability of the true base code below which a patch never goes (VQGAN only).
        select_threshold: Mean absolute difference from the image that is near enough; 0 for the nearest round.
    """

    variable_length = True
    stochastic = True  # halting draws in evaluation too, and so does the VAE

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
        init_tokens: int = 32,
        rounds: int = 8,
        halting_threshold: float,
        select_threshold: float = 0.0,
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise MethodError(f"image_size {image_size} is not a multiple of the patch size {patch_size}")
        if init_tokens * rounds > DECODER_POSITIONS:
            raise MethodError(f"there are positions for {DECODER_POSITIONS} tokens, not for {init_tokens * rounds}")
        self.image_size, self.grid = image_size, image_size // patch_size
        self.max_tokens, self.init_tokens, self.token_dim = init_tokens * rounds, init_tokens, token_dim
        self.halting_threshold, self.select_threshold = halting_threshold, select_threshold
        width, other = encoder["width"], decoder["width"]
        sizes = [VitSize(**{"patch_size": patch_size, **part}) for part in (encoder, decoder)]
        positions = 1 + self.grid**2
        self.encoder_positional_embedding = drawn(positions, width)
        self.encoder_class_embedding = drawn(1, width)
        self.encoder_mask_token = drawn(1, 1, width)
        self.decoder_positional_embedding = drawn(positions, other)
        self.decoder_class_embedding = drawn(1, other)
        self.decoder_mask_token = drawn(1, 1, other)
        self.latent_tokens = drawn(init_tokens, width)
        self.latent_token_positional_embedding = drawn(init_tokens, width)
        self.timestep_embedding = drawn(rounds, init_tokens, width)
        self.encoder_ln_pre, self.encoder_ln_post, self.encoder_ln_recursive = (nn.LayerNorm(width) for _ in range(3))
        self.pre_quantizer_mlp = nn.Linear(width, token_dim)
        self.encoder = Transformer(sizes[0])
        self.base_tokenizer = BaseTokenizer(**base)
        self.decoder = Decoder(sizes[1], token_dim, self.base_tokenizer.outputs)
        self.patch_embed = nn.Conv2d(3, width - self.base_tokenizer.channels, patch_size, stride=patch_size)
        self.quantize = None if codebook_size is None else VectorQuantizer(codebook_size, token_dim, l2_norm=True)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """One, or none for continuous tokens."""
        return () if self.quantize is None else self.quantize.codebook_sizes

    @property
    def bits_per_token(self) -> float:
        """Bits of a code, or of the float32 channels of a latent."""
        return float(LATENT_BITS * self.token_dim) if self.quantize is None else bits_of(self.codebook_sizes)

    def _check_tokens(self, tokens: Tokens) -> None:
        if self.quantize is None:
            check_latents(tokens, self.max_tokens, self.token_dim, variable=True)
        else:
            check_codes(tokens, self.codebook_sizes, self.max_tokens, variable=True)

    def _encode(self, images: Tensor, tokens: int | None, generator: torch.Generator | None) -> Tokens:
        longest = self.max_tokens if tokens is None else tokens
        rounds = longest // self.init_tokens
        if rounds == 0:
            raise MethodError(f"the shortest code has {self.init_tokens} tokens, {tokens} were asked for")
        generator = need_noise(generator, "encode")
        count, noise, uniform = len(images), None, None
        if self.base_tokenizer.vqgan is None:
            like = images.new_empty(count, self.base_tokenizer.channels, self.grid, self.grid)
            noise = draw_noise(like, generator)
        else:  # drawn for all rounds, so that fewer of them see the same noise
            like = images.new_empty(count, self.max_tokens // self.init_tokens, self.grid**2)
            uniform = draw_uniform(like, generator).transpose(0, 1)
        found = self.rollout(images, rounds, *self.base_tokenizer.latents(images, noise), uniform)
        return self._packed(found, first_below(self.distances(found, images), self.select_threshold), longest)

    def _packed(self, found: list[Round], chosen: Tensor, longest: int) -> Tokens:
        """Tokens of the `chosen` round `(B,)` of each image, zeros behind them."""
        codes = [one.codes if one.codes is not None else one.encoded for one in found]
        dims = (0,) * (2 * (codes[0].dim() - 2))
        padded = torch.stack([functional.pad(one, (*dims, 0, longest - one.shape[1])) for one in codes], dim=1)
        picked = padded[torch.arange(len(chosen), device=chosen.device), chosen]
        lengths = (chosen + 1) * self.init_tokens
        if self.quantize is None:
            return pack_latents(picked, lengths)
        return pack_codes(picked, self.codebook_sizes, lengths)

    def _decode(self, tokens: Tokens, generator: torch.Generator | None, text: Tensor | None) -> Tensor:  # noqa: ARG002
        rows = latents_of(tokens) if self.quantize is None else self.quantize.lookup(codes_of(tokens))
        count, start = rows.shape[1], 1 + self.grid**2
        mask = torch.arange(count, device=rows.device) < tokens.lengths.to(rows.device)[:, None]
        seen = functional.pad(mask, (start, 0), value=True)[:, None, None]
        return self.base_tokenizer.decode(self.predict(rows.to(self.number_type), seen), self.grid)

    def predict(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the base tokenizer decodes, `(B, h*w, O)`, of tokens `(B, n, D)`; `mask` as `titok_vit.Attention`'s."""
        masks = self.decoder_mask_token[0].expand(self.grid**2, -1)
        start = torch.cat([self.decoder_class_embedding, masks]) + self.decoder_positional_embedding
        return self.decoder.predict(start, tokens, mask)

    def rollout(
        self, images: Tensor, rounds: int, latents: Tensor, targets: Tensor | None, uniform: Tensor | None
    ) -> list[Round]:
        """Every round of images in [0, 1]; after each, some of the patches that are told well give way to a blank.

        With a VQGAN a patch goes with the probability that its code is given, if that is not too small. With a VAE none
        goes: the release's assignment to a copy leaves them all (paper, section 3: those with a small difference go).

        Args:
            images: `(B, 3, S, S)`.
            rounds: How many.
            latents: The base tokenizer's, `(B, C, h, w)`.
            targets: The base tokenizer's codes `(B, h*w)`, where it has such.
            uniform: In [0, 1), `(rounds, B, h*w)`, for the draws that leave patches out; None where there are no codes.
        """
        patches = torch.cat([latents, self.patch_embed(images)], dim=1)
        patches = functional.normalize(as_rows(patches), dim=-1)
        start = self.encoder_class_embedding.expand(len(images), -1, -1).to(patches.dtype)
        image_part = torch.cat([start, patches], dim=1) + self.encoder_positional_embedding
        fresh = self.latent_tokens + self.latent_token_positional_embedding
        tokens = image_part[:, :0]
        blank = self.encoder_mask_token + self.encoder_positional_embedding[1:]
        found: list[Round] = []
        first = image_part.shape[1]
        for index in range(rounds):
            new = (fresh + self.timestep_embedding[index]).expand(len(images), -1, -1)
            hidden = torch.cat([image_part, tokens, new.to(image_part.dtype)], dim=1)
            hidden = self.encoder.run(self.encoder_ln_pre(hidden) if index == 0 else self.encoder_ln_recursive(hidden))
            image_part, tokens = hidden[:, :first], hidden[:, first:]
            found.append(self._round(hidden[:, 1:], tokens))
            if targets is not None and uniform is not None:
                sure = torch.softmax(found[-1].predicted, -1).gather(2, targets[..., None]).squeeze(2)
                gone = (uniform[index] < sure) & (sure >= self.halting_threshold)
                left = torch.where(gone[..., None], blank.to(hidden.dtype), image_part[:, 1:])
                image_part = torch.cat([image_part[:, :1], left], dim=1)
        return found

    def _round(self, features: Tensor, tokens: Tensor) -> Round:
        encoded = self.pre_quantizer_mlp(self.encoder_ln_post(tokens))
        codes, rows = None, encoded
        if self.quantize is not None:
            codes = self.quantize(encoded).codes
            rows = self.quantize.lookup(codes)
        predicted = self.predict(rows.to(self.number_type))
        return Round(features, encoded, codes, rows, predicted, self.base_tokenizer.decode(predicted, self.grid))

    @staticmethod
    def distances(found: list[Round], images: Tensor) -> Tensor:
        """Mean absolute difference of every round's image, `(rounds, B)`."""
        return torch.stack([(one.images - images).abs().flatten(1).mean(1) for one in found])


def first_below(distances: Tensor, threshold: float) -> Tensor:
    """The first of `(rounds, ...)` below a threshold, or else the least, the earliest of equals."""
    below = distances < threshold
    return torch.where(below.any(0), below.int().argmax(0), distances.argmin(0))


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `ALIT` for the release's configuration, with its parts' sizes spelled out."""
    return {
        **shared_arguments(config),
        "init_tokens": config["num_init_latent_tokens"],
        "rounds": config["max_rollout_iters"],
        "halting_threshold": config["dynamic_halting_threshold"],
        "select_threshold": config.get("select_threshold", 0.0),
    }


def _variant(size: Mapping[str, int], base: str, *, quantized: bool) -> Variant:
    config = {
        "image_size": 256,
        "patch_size": 16,
        "base": RELEASED_BASES[base],
        "encoder": size,
        "decoder": size,
        "codebook_size": 4096 if quantized else None,
        "halting_threshold": 0.55 if base == "vqgan" else 0.025,
    }
    return Variant(config=config, note="trained on ImageNet-100; the authors keep their weights on Dropbox")


SMALL, BASE, SEMILARGE = (
    {"width": width, "layers": layers, "heads": heads}
    for width, layers, heads in ((1024, 8, 8), (768, 12, 12), (1024, 16, 16))
)

METHOD = TokenizerMethod(
    id="alit",
    title="ALIT",
    idea="Tokens are added round by round, each reading image and tokens again, until the image is told well enough",
    paper=Paper(
        title="Adaptive Length Image Tokenization via Recurrent Allocation",
        authors="Shivam Duggal, Phillip Isola, Antonio Torralba, William T. Freeman",
        year=2024,
        url="https://arxiv.org/abs/2411.02393",
    ),
    build=ALIT,
    from_release=release_arguments,
    # Discriminators and perceptual networks are in the files of finished training.
    layout=Layout(wrappers=("ema",), ignored=("gan_losses.",), renames=BASE_RENAMES),
    variants={
        "small-vqgan-quantized": _variant(SMALL, "vqgan", quantized=True),
        "small-vqgan-continuous": _variant(SMALL, "vqgan", quantized=False),
        "small-vae-quantized": _variant(SMALL, "vae", quantized=True),
        "small-vae-continuous": _variant(SMALL, "vae", quantized=False),
        "base-vqgan-quantized": _variant(BASE, "vqgan", quantized=True),
        "semilarge-vqgan-quantized": _variant(SEMILARGE, "vqgan", quantized=True),
    },
)
