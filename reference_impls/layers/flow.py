"""Sampling from rectified flows: Euler's method along a velocity, and guidance of that velocity by a condition.

Nothing here draws noise: the starting point is given.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from reference_impls.layers.precision import at_least_float32

__all__ = ["AdaptiveProjectedGuidance", "classifier_free", "euler", "uniform_times"]


def uniform_times(steps: int) -> list[float]:
    """The `steps + 1` evenly spaced times from 1 (noise) to 0 (data)."""
    return [1.0 - step / steps for step in range(steps)] + [0.0]


def euler(velocity: Callable[[Tensor, float], Tensor], start: Tensor, times: Sequence[float]) -> Tensor:
    """`start`, given at `times[0]`, carried to `times[-1]` (rectified flow, arXiv 2209.03003, section 2).

    Args:
        velocity: The time derivative dx/dt of `x` at a time; both have the shape of `start`.
        start: `(B, ...)`, float32 or wider is what the steps are added up in.
        times: Times in the order in which they are passed.
    """
    x = at_least_float32(start)
    for now, then in pairwise(times):
        x = x + (then - now) * velocity(x, now).to(x.dtype)
    return x


def classifier_free(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """`unconditional + scale * (conditional - unconditional)`: 1 is no guidance (arXiv 2207.12598, as in code)."""
    return torch.lerp(unconditional, conditional, scale)


class AdaptiveProjectedGuidance:
    """Guidance that drops what only makes the output stronger (APG, arXiv 2410.02416, sections 4-5, algorithm 1).

    It remembers a running sum of differences: one object for one trajectory.

    Args:
        scale: Guidance; 1 is none.
        eta: How much is kept of the part of the difference that is parallel to the conditional output.
        momentum: How much of the running sum goes into the next difference; negative pushes away from it.
        norm_threshold: The largest norm of an image's difference; 0 for no limit.
    """

    def __init__(self, scale: float, *, eta: float = 0.0, momentum: float = -0.5, norm_threshold: float = 2.5) -> None:
        self.scale, self.eta, self.momentum, self.norm_threshold = scale, eta, momentum, norm_threshold
        self._running: Tensor | None = None

    def __call__(self, conditional: Tensor, unconditional: Tensor) -> Tensor:
        """The guided output of one step, `(B, ...)`, of what the network gives with and without its condition."""
        kept, other = at_least_float32(conditional), at_least_float32(unconditional)
        difference = kept - other
        if self._running is not None:
            difference = difference + self.momentum * self._running
        self._running = difference  # before it is shortened, as in the paper's listing
        if self.norm_threshold > 0:
            norms = _flat(difference).norm(dim=1)
            difference = difference * _per_image((self.norm_threshold / norms).clamp(max=1.0), difference)
        direction = torch.nn.functional.normalize(_flat(kept), dim=1)
        lengths = (_flat(difference) * direction).sum(1, keepdim=True)
        parallel = (lengths * direction).reshape(difference.shape)
        return kept + (self.scale - 1.0) * (difference - (1.0 - self.eta) * parallel)


def _flat(values: Tensor) -> Tensor:
    return values.flatten(1)


def _per_image(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.dim() - 1))
