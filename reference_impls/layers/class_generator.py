"""What generators by class share: the checks at the door, noise per image, and the tokenizer at the end."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from reference_impls.layers.image_generator import ImageGenerator, check_labels
from reference_impls.layers.noise import Draws, Noise
from tokenmark.contracts import MethodError, Prompts

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


class ClassGenerator(ImageGenerator):
    """The contract's `sample` around `draw`, which a method gives.

    A method sets `classes`, and calls `bind` once it is built; `draw` may take for granted that labels are classes.
    """

    classes: int
    """Number of classes; the dropped one is not among them."""

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
        check_labels(labels, generators)
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise MethodError(f"labels must be 0 to {self.classes - 1}")
        watch = Watch()
        images = self.draw(labels.to(self.place), Draws(generators, self.place), settings, watch)
        watch.check("the sampler")
        return images

    def draw(self, labels: Tensor, noise: Noise, settings: Any, watch: Watch) -> Tensor:
        """Images `(B, 3, S, S)` in [0, 1] from given noise; every step shows `watch` what it computed."""
        raise NotImplementedError
