"""What all learned tokenizers share: the checks at the door, the packing of codes and latents, the clamp at the end.

A method gives the mathematics: `encode_codes` and `decode_codes`, or `posterior` and `decode_latents`.
"""

import torch
from torch import Tensor, nn

from reference_impls.layers.gaussian import DiagonalGaussian, draw_noise
from reference_impls.layers.token_checks import (
    LATENT_BITS,
    bits_of,
    check_codes,
    check_images,
    check_latents,
    check_length,
    check_text,
    need_noise,
    pack_codes,
    pack_latents,
)
from tokenmark.contracts import TokenizerInfo, Tokens

__all__ = ["CodeTokenizer", "ImageTokenizer", "LatentTokenizer", "from_signed", "to_signed"]


def to_signed(images: Tensor) -> Tensor:
    """[0, 1] to the [-1, 1] that most releases compute in."""
    return images * 2.0 - 1.0


def from_signed(images: Tensor) -> Tensor:
    """[-1, 1] to [0, 1]; what lies outside stays outside."""
    return (images + 1.0) / 2.0


class ImageTokenizer(nn.Module):
    """The contract's `encode` and `decode` around `_encode` and `_decode`.

    A method sets the class or instance attributes below, and may take for granted what is checked here: images
    `(B, 3, S, S)` of its own number type, a length that it can give, a generator where it draws noise.
    """

    image_size: int
    """Side of the square images, in pixels."""
    max_tokens: int
    variable_length: bool = False
    """Whether `tokens=` may ask for fewer."""
    stochastic: bool = False
    """Whether `encode` draws noise."""
    draws_to_decode: bool = False
    """Whether `decode` draws noise."""
    text: tuple[int, int] | None = None
    """Tokens and channels of the text features that `decode` needs."""

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """One size per codebook; none for continuous latents."""
        raise NotImplementedError

    @property
    def bits_per_token(self) -> float:
        """Bits of one token."""
        return bits_of(self.codebook_sizes)

    @property
    def info(self) -> TokenizerInfo:
        """The shape of the code."""
        return TokenizerInfo(
            image_size=self.image_size,
            max_tokens=self.max_tokens,
            codebook_sizes=self.codebook_sizes,
            bits_per_token=self.bits_per_token,
            variable_length=self.variable_length,
            stochastic=self.stochastic,
            parameters=sum(parameter.numel() for parameter in self.parameters()),
            draws_to_decode=self.draws_to_decode,
            text=self.text,
        )

    @property
    def number_type(self) -> torch.dtype:
        """The floating-point type of the parameters, which images are brought to."""
        return next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.float32)

    @torch.no_grad()
    def encode(self, images: Tensor, tokens: int | None = None, generator: torch.Generator | None = None) -> Tokens:
        """Tokens of images `(B, 3, S, S)` in [0, 1].

        Raises MethodError for other images, for a length that the method cannot give, and for a missing `generator`
        where it draws noise.
        """
        check_images(images, self.image_size)
        check_length(tokens, self.max_tokens, variable=self.variable_length)
        if self.stochastic:
            need_noise(generator, "encode")
        return self._encode(images.to(self.number_type), tokens, generator)

    @torch.no_grad()
    def decode(self, tokens: Tokens, generator: torch.Generator | None = None, text: Tensor | None = None) -> Tensor:
        """Images `(B, 3, S, S)` clamped to [0, 1], float32 or wider.

        Raises MethodError for tokens that are not this tokenizer's, and for a missing `generator` or `text`
        (features `(B, tokens, channels)`) where it needs one.
        """
        self._check_tokens(tokens)
        if self.text is not None:
            text = check_text(text, len(tokens.lengths), *self.text)
        if self.draws_to_decode:
            need_noise(generator, "decode")
        images = self._decode(tokens, generator, text).clamp(0.0, 1.0)
        return images if images.dtype == torch.float64 else images.float()

    def _check_tokens(self, tokens: Tokens) -> None:
        raise NotImplementedError

    def _encode(self, images: Tensor, tokens: int | None, generator: torch.Generator | None) -> Tokens:
        raise NotImplementedError

    def _decode(self, tokens: Tokens, generator: torch.Generator | None, text: Tensor | None) -> Tensor:
        raise NotImplementedError


class CodeTokenizer(ImageTokenizer):
    """A tokenizer with integer codes: `(B, N)`, or `(B, N, K)` where every token has K of them."""

    def encode_codes(self, images: Tensor) -> Tensor:
        """Codes of images `(B, 3, S, S)` in [0, 1], all `max_tokens` of them; a shorter code is its beginning."""
        raise NotImplementedError

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Images in [0, 1], not clamped, of codes."""
        raise NotImplementedError

    def _check_tokens(self, tokens: Tokens) -> None:
        check_codes(tokens, self.codebook_sizes, self.max_tokens, variable=self.variable_length)

    def _encode(self, images: Tensor, tokens: int | None, generator: torch.Generator | None) -> Tokens:  # noqa: ARG002
        return pack_codes(self.encode_codes(images)[:, :tokens], self.codebook_sizes)

    def _decode(self, tokens: Tokens, generator: torch.Generator | None, text: Tensor | None) -> Tensor:  # noqa: ARG002
        return self.decode_codes(codes_of(tokens))


class LatentTokenizer(ImageTokenizer):
    """A tokenizer with continuous latents `(B, N, C)`, which are drawn from the encoder's Gaussian, as releases do."""

    stochastic = True
    channels: int
    """C."""

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """There are none."""
        return ()

    @property
    def bits_per_token(self) -> float:
        """The channels as float32."""
        return float(LATENT_BITS * self.channels)

    def posterior(self, images: Tensor) -> DiagonalGaussian:
        """The Gaussian of images in [0, 1], its mean `(B, C, ...)`: channels first, tokens in row-major order."""
        raise NotImplementedError

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Images in [0, 1], not clamped, of latents `(B, N, C)`."""
        raise NotImplementedError

    def _check_tokens(self, tokens: Tokens) -> None:
        check_latents(tokens, self.max_tokens, self.channels, variable=self.variable_length)

    def _encode(self, images: Tensor, tokens: int | None, generator: torch.Generator | None) -> Tokens:
        posterior = self.posterior(images)
        latents = posterior.sample(draw_noise(posterior.mean, need_noise(generator, "encode")))
        return pack_latents(latents.flatten(2).transpose(1, 2)[:, :tokens])

    def _decode(self, tokens: Tokens, generator: torch.Generator | None, text: Tensor | None) -> Tensor:  # noqa: ARG002
        return self.decode_latents(latents_of(tokens).to(self.number_type))


def codes_of(tokens: Tokens) -> Tensor:
    """The codes of tokens that were checked to have some."""
    assert tokens.codes is not None  # noqa: S101
    return tokens.codes


def latents_of(tokens: Tokens) -> Tensor:
    """The latents of tokens that were checked to have some."""
    assert tokens.latents is not None  # noqa: S101
    return tokens.latents
