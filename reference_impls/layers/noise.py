"""Noise that generators draw: each image from its own generator, so that a sample does not depend on its batch."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Draws", "Noise", "drawn_by_race", "exponential", "gumbel"]

SMALLEST = 1e-20
"""What uniform noise is held above before a logarithm."""


class Noise(Protocol):
    """Where random numbers come from. `name` and `step` say what they are for, so that recorded ones can be found."""

    def uniform(self, name: str, step: int, *shape: int) -> Tensor:
        """Numbers `(B, *shape)` in [0, 1)."""
        ...

    def normal(self, name: str, step: int, *shape: int) -> Tensor:
        """Standard Gaussian numbers `(B, *shape)`."""
        ...


class Draws:
    """Noise drawn from one generator per image, in the order in which it is asked for."""

    def __init__(self, generators: Sequence[torch.Generator], device: torch.device) -> None:
        self._generators, self._device = generators, device

    def uniform(self, name: str, step: int, *shape: int) -> Tensor:  # noqa: ARG002  drawn noise has no name
        """Numbers `(B, *shape)` in [0, 1)."""
        return self._stacked(torch.rand, shape)

    def normal(self, name: str, step: int, *shape: int) -> Tensor:  # noqa: ARG002  as above
        """Standard Gaussian numbers `(B, *shape)`."""
        return self._stacked(torch.randn, shape)

    def _stacked(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        if not self._generators:
            return torch.zeros(0, *shape, device=self._device)
        each = [draw(shape, generator=generator, device=generator.device) for generator in self._generators]
        return torch.stack(each).to(self._device)


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise of uniform noise in [0, 1)."""
    return -torch.log(-torch.log(uniform.clamp(min=SMALLEST)))


def exponential(uniform: Tensor) -> Tensor:
    """Exponential(1) noise of uniform noise in [0, 1)."""
    return -torch.log(uniform.clamp(min=SMALLEST))


def drawn_by_race(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Indices drawn from `probabilities` `(..., K)` with uniform noise of that shape, int64 `(...)`.

    The race of exponential clocks by which torch.multinomial draws one sample: the first of the largest p / E, with
    E = -log u.
    """
    return (probabilities / exponential(uniform)).argmax(-1)
