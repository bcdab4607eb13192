"""What generators by class share: the checks at the door, noise per image, and the tokenizer at the end."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.layers.noise import Draws, Noise
from tokenmark.contracts import MethodError, Prompts, Tokenizer

__all__ = ["ClassGenerator", "Watch"]


class Watch:
    """Sees the numbers of every step, on their device, and tells at the end whether one of them was none."""

    def __init__(self) -> None:
        self._steps: list[Tensor] = []

    def see(self, numbers: Tensor) -> Tensor:
        """The same numbers, remembered as finite or not."""
        self._steps.append(torch.isfinite(numbers).all())
        return numbers

    def check(self, what: str) -> None:
        """Raise MethodError if a step gave NaN or infinity; waits for the device."""
        if not self._steps or self._steps[0].is_meta:  # tensors without content are counted, not computed
            return
        if not bool(torch.stack(self._steps).all()):
            first = int((~torch.stack(self._steps)).nonzero()[0])
            raise MethodError(f"step {first} of {what} gave NaN or infinity: its weights or settings are broken")


class ClassGenerator(nn.Module):
    """The contract's `sample` around `draw`, which a method gives.

    A method sets `classes`, and calls `bind` once it is built; `draw` may take for granted that labels are classes.
    """

    classes: int
    """Number of classes; the dropped one is not among them."""
    _tokenizer: tuple[Tokenizer, ...] = ()

    def bind(self, tokenizer: Tokenizer) -> None:
        """Join the network to the tokenizer that it writes for, which is neither moved nor saved with it."""
        # A tuple, because nn.Module would register a bare module and save its weights with the generator's.
        self._tokenizer = (tokenizer,)

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

    @torch.no_grad()
    def sample(
        self,
        labels: Tensor,
        generators: Sequence[torch.Generator],
        settings: Any,
        prompts: Prompts | None = None,  # noqa: ARG002  a class is no text
    ) -> Tensor:
        """Images `(B, 3, S, S)` in [0, 1] for `labels` (int64, `(B,)`), each drawn from its own generator.

        Raises MethodError for labels that are not classes, where labels and generators are not equally many, and for
        a step that gave NaN.
        """
        if labels.dtype != torch.int64 or labels.dim() != 1:
            raise MethodError(f"labels must be int64 (B,), got {labels.dtype} {tuple(labels.shape)}")
        if len(generators) != len(labels):
            raise MethodError(f"give one generator per label: got {len(generators)} for {len(labels)}")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise MethodError(f"labels must be 0 to {self.classes - 1}")
        watch = Watch()
        images = self.draw(labels.to(self.place), Draws(generators, self.place), settings, watch)
        watch.check("the sampler")
        return images

    def draw(self, labels: Tensor, noise: Noise, settings: Any, watch: Watch) -> Tensor:
        """Images `(B, 3, S, S)` in [0, 1] from given noise; every step shows `watch` what it computed."""
        raise NotImplementedError
