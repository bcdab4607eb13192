"""A tokenizer's calls with all that they need made up: noise from a seed, text features that are drawn."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tokenmark.contracts import Tokenizer, Tokens
from tokenmark.spec import RunSpec

ENCODE, DECODE, BOTH = "encode", "decode", "both"


class Coder:
    """A tokenizer's calls on the path that is timed: noise from a seed, text features that are drawn."""

    def __init__(self, tokenizer: Tokenizer, spec: RunSpec, device: torch.device) -> None:
        self.tokenizer, self._device, self._seed = tokenizer, device, spec.seed
        self._half = spec.precision == "bfloat16"
        self._info = tokenizer.info

    def encode(self, images: Tensor, tokens: int | None = None) -> Tokens:
        """Tokens of images on the device; `tokens` asks for a shorter code."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            return self.tokenizer.encode(images, tokens, self._noise() if self._info.stochastic else None)

    def decode(self, tokens: Tokens) -> Tensor:
        """Images of tokens."""
        more: dict[str, Any] = {"generator": self._noise()} if self._info.draws_to_decode else {}
        if self._info.text is not None:
            drawn = torch.rand(self._info.text, generator=torch.Generator().manual_seed(self._seed))
            more["text"] = drawn.to(self._device).expand(len(tokens.lengths), -1, -1)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            return self.tokenizer.decode(tokens, **more)

    def calls(self, images: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
        """What is timed, by name; decoding starts from the tokens of `images`, which are made once."""
        with torch.inference_mode():
            tokens = self.encode(images)
        return {
            ENCODE: lambda given: _content(self.encode(given)),
            DECODE: lambda _given: self.decode(tokens),
            BOTH: lambda given: self.decode(self.encode(given)),
        }

    def _noise(self) -> torch.Generator:
        return torch.Generator(self._device).manual_seed(self._seed)


def _content(tokens: Tokens) -> Tensor:
    content = tokens.codes if tokens.codes is not None else tokens.latents
    assert content is not None  # noqa: S101  one of the two is always there
    return content
