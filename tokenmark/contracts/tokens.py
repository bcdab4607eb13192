"""Images to tokens and back, and class labels to images: what a tokenizer and a generator do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from tokenmark.errors import MethodError


@dataclass(frozen=True, slots=True)
class Tokens:
    """What an encoder hands to its decoder: enough to store, to count and to decode.

    Exactly one of `codes` (int64, `(B, N)` or `(B, N, K)`) and `latents` (float, `(B, N, C)`) is set.
    `lengths` (int64, `(B,)`) counts the tokens of each image; `bits` (float64, `(B,)`) is their size.
    """

    lengths: Tensor
    bits: Tensor
    codes: Tensor | None = None
    latents: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.codes is None) == (self.latents is None):
            raise MethodError("Tokens hold either codes or latents: give exactly one of the two")


@dataclass(frozen=True, slots=True)
class TokenizerInfo:
    """What a tokenizer's code looks like, known before anything runs."""

    image_size: int
    """Side of the square images that it takes, in pixels."""
    max_tokens: int | None
    """The most tokens an image can take; None where the code has no bound (JPEG bytes)."""
    codebook_sizes: tuple[int, ...]
    """One size per codebook; empty for continuous latents."""
    bits_per_token: float
    variable_length: bool
    """Whether `encode(images, tokens=k)` can give a shorter code."""
    stochastic: bool
    """Whether `encode` draws noise, and so needs a `torch.Generator`."""
    parameters: int
    draws_to_decode: bool = False
    """Whether `decode` draws noise (flow and diffusion decoders), and so needs a `torch.Generator`."""
    text: tuple[int, int] | None = None
    """For a decoder that is told what the image shows: tokens and channels of the text features that it needs."""


@runtime_checkable
class Tokenizer(Protocol):
    """Images to tokens and back."""

    @property
    def info(self) -> TokenizerInfo:
        """The shape of the code."""
        ...

    def encode(self, images: Tensor, tokens: int | None = None, generator: torch.Generator | None = None) -> Tokens:
        """Encode `(B, 3, H, W)` images in [0, 1]; `tokens` asks for a shorter code (MethodError if it cannot)."""
        ...

    def decode(self, tokens: Tokens, generator: torch.Generator | None = None, text: Tensor | None = None) -> Tensor:
        """Give images `(B, 3, H, W)` clamped to [0, 1]; `info` says whether noise or text features are needed."""
        ...


@dataclass(frozen=True, slots=True)
class Prompts:
    """What a generator is told in words, as features of a text network."""

    states: Tensor
    """Of every token of every image's text, behind the last norm, `(B, T, C)`."""
    inner: Tensor
    """The same in front of the last block, as they are, `(B, T, C)`."""
    pooled: Tensor
    """Of every text as a whole, projected and not normalised, `(B, P)`."""
    empty_states: Tensor
    """Those of the empty text, `(1, T, C)`."""
    empty_inner: Tensor
    """The same of the empty text, `(1, T, C)`."""
    empty_pooled: Tensor
    """The same of the empty text, `(1, P)`."""


@runtime_checkable
class Generator(Protocol):
    """Class labels, or texts, to images."""

    def sample(
        self, labels: Tensor, generators: Sequence[torch.Generator], settings: Any, prompts: Prompts | None = None
    ) -> Tensor:
        """Images `(B, 3, H, W)` in [0, 1] for `labels` (int64, `(B,)`), or for the texts of `prompts`.

        Every image draws from its own generator, so that a sample does not depend on its batch.
        """
        ...

    def steps(self, settings: Any) -> int:
        """How often the network is called for a batch of images; guided and unguided halves together count once."""
        ...

    @property
    def parameters_total(self) -> int:
        """Parameters of the generator itself, its tokenizer left out."""
        ...
