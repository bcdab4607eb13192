"""What all generators share: the tokenizer that they write for, their size and place, and blocks to compile."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.layers.tokenizer_fit import check_reads, check_reads_latents
from tokenmark.contracts import MethodError, Tokenizer

__all__ = ["ImageGenerator", "check_labels"]


def check_labels(labels: Tensor, generators: Sequence[torch.Generator]) -> None:
    """Raise MethodError unless labels are int64 `(B,)` and generators as many."""
    if labels.dtype != torch.int64 or labels.dim() != 1:
        raise MethodError(f"labels must be int64 (B,), got {labels.dtype} {tuple(labels.shape)}")
    if len(generators) != len(labels):
        raise MethodError(f"give one generator per label: got {len(generators)} for {len(labels)}")


class ImageGenerator(nn.Module):
    """A network that writes for a tokenizer; a method calls `bind` or `attach_...` once it is built."""

    _tokenizer: tuple[Tokenizer, ...] = ()

    def bind(self, tokenizer: Tokenizer) -> None:
        """Join the network to the tokenizer that it writes for, which is neither moved nor saved with it."""
        # A tuple, because nn.Module would register a bare module and save its weights with the generator's.
        self._tokenizer = (tokenizer,)

    def attach_codes(self, tokenizer: Tokenizer | None, count: int, codebook_sizes: Sequence[int]) -> None:
        """`bind` to a tokenizer that reads `count` tokens of codebooks of these sizes; None leaves it without one.

        Raises MethodError for a tokenizer that reads others.
        """
        if tokenizer is not None:
            check_reads(tokenizer, count, codebook_sizes)
            self.bind(tokenizer)

    def attach_latents(self, tokenizer: Tokenizer | None, count: int, channels: int) -> None:
        """The same for one that reads `count` latents of so many channels, and draws nothing to decode them."""
        if tokenizer is not None:
            check_reads_latents(tokenizer, count, channels)
            self.bind(tokenizer)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that it writes for; MethodError where it was built without one."""
        if not self._tokenizer:
            raise MethodError("this generator was built without a tokenizer: it gives tokens, and no images")
        return self._tokenizer[0]

    @property
    def parameters_total(self) -> int:
        """Parameters of the generator, its tokenizer left out."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def place(self) -> torch.device:
        """Where its parameters lie."""
        return next(self.parameters()).device

    def compile_blocks(self) -> int:
        """Compile, in place, the calls of all blocks that stand in a row of their like; gives their number.

        One compilation serves all of a row, where that of the whole loop would unroll its steps.
        """
        rows = [module for module in self.modules() if isinstance(module, nn.ModuleList) and len(module) > 1]
        blocks = [block for row in rows if len({type(block) for block in row}) == 1 for block in row]
        for block in blocks:
            block.compile()
        return len(blocks)

    def steps(self, settings: Any) -> int:
        """How often the network is called for a batch; guided and unguided halves together count once."""
        raise NotImplementedError
