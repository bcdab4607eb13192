"""What generators by text share: the checks at the door, and what ClassGenerator does for those by class."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from reference_impls.layers.class_generator import Watch
from reference_impls.layers.image_generator import ImageGenerator, check_labels
from reference_impls.layers.noise import Draws, Noise
from tokenmark.contracts import MethodError, Prompts, Tokens

__all__ = ["TextGenerator"]


class TextGenerator(ImageGenerator):
    """The contract's `sample` around `draw`, which a method gives, for networks that are told in words what to draw.

    A method sets `told`, and calls `bind` once it is built; `draw` may take for granted that prompts are of that size
    and lie where the network does. Labels only say how many images are wanted: what they show is in the prompts.
    """

    told: tuple[int, int, int]
    """Tokens of a text, channels of their states, and those of the text as a whole."""

    @torch.no_grad()
    def sample(
        self, labels: Tensor, generators: Sequence[torch.Generator], settings: Any, prompts: Prompts | None = None
    ) -> Tensor:
        """Images `(B, 3, S, S)` in [0, 1] for the texts of `prompts`, each drawn from its own generator.

        Raises MethodError without prompts, for prompts of another size or number, where labels and generators are not
        equally many, and for a step that gave NaN.
        """
        check_labels(labels, generators)
        if prompts is None:
            raise MethodError("this generator is told in words what to draw: give sample() prompts")
        self._check(prompts, len(labels))
        place = self.place
        here = Prompts(**{part.name: getattr(prompts, part.name).to(place) for part in fields(Prompts)})
        watch = Watch()
        images = self.draw(here, Draws(generators, place), settings, watch)
        watch.check("the sampler")
        return images

    def draw(self, prompts: Prompts, noise: Noise, settings: Any, watch: Watch) -> Tensor:
        """Images `(B, 3, S, S)` in [0, 1] from given noise; every step shows `watch` what it computed."""
        raise NotImplementedError

    def decoded(self, tokens: Tokens, states: Tensor) -> Tensor:
        """Images of tokens; a tokenizer whose decoder is told the text, too, is given `states` `(B, T, C)`."""
        if self.tokenizer.info.text is None:
            return self.tokenizer.decode(tokens)
        return self.tokenizer.decode(tokens, None, states)

    def _check(self, prompts: Prompts, count: int) -> None:
        length, channels, whole = self.told
        wanted = {
            "states": (count, length, channels),
            "inner": (count, length, channels),
            "pooled": (count, whole),
            "empty_states": (1, length, channels),
            "empty_inner": (1, length, channels),
            "empty_pooled": (1, whole),
        }
        for name, shape in wanted.items():
            given: Tensor = getattr(prompts, name)
            if not given.is_floating_point() or tuple(given.shape) != shape:
                raise MethodError(f"prompts.{name} must be floats {shape}, got {given.dtype} {tuple(given.shape)}")
