"""What generators by class share whose images are codes that a tokenizer decodes."""

from typing import Any

from torch import Tensor

from reference_impls.layers.class_generator import ClassGenerator, Watch
from reference_impls.layers.noise import Noise
from reference_impls.layers.token_checks import pack_codes
from tokenmark.contracts import Tokenizer

__all__ = ["CodeGenerator"]


class CodeGenerator(ClassGenerator):
    """The images of what `generate` writes.

    A method gives `generate` and `written`, and calls `attach` once it is built.
    """

    @property
    def written(self) -> tuple[int, tuple[int, ...]]:
        """How many tokens an image has, and the size of each of the codebooks that a token has a code of."""
        raise NotImplementedError

    def attach(self, tokenizer: Tokenizer | None) -> None:
        """Bind to `tokenizer`, which must read the codes that are written; None leaves it without one."""
        self.attach_codes(tokenizer, *self.written)

    def generate(self, labels: Tensor, settings: Any, noise: Noise, watch: Watch) -> Tensor:
        """Codes `(B, N)`, or `(B, N, K)` of several codebooks, for `labels` `(B,)` from given noise."""
        raise NotImplementedError

    def readable(self, codes: Tensor) -> Tensor:
        """What `generate` gave as the tokenizer reads it."""
        return codes

    def draw(self, labels: Tensor, noise: Noise, settings: Any, watch: Watch) -> Tensor:
        """Images `(B, 3, S, S)` in [0, 1] from given noise."""
        tokenizer = self.tokenizer  # before anything is written, which without one is for nothing
        codes = self.readable(self.generate(labels, settings, noise, watch))
        return tokenizer.decode(pack_codes(codes, self.written[1]))
