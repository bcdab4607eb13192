"""DPM-Solver (arXiv 2206.00927, 2211.01095): diffusion as an equation without noise, in few steps of high order.

The single-step kind that predicts the clean sample: each step of order k calls the network k times, at times of the
grid, so that all steps together call it as often as was asked.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from tokenmark.contracts import MethodError

__all__ = ["TRAINING_STEPS", "DpmSolver", "NoiseModel", "scaled_linear_betas", "stable_diffusion_solver", "step_orders"]

Table: TypeAlias = npt.NDArray[Any]

TRAINING_STEPS = 1000
"""Of Stable Diffusion."""

NoiseModel: TypeAlias = Callable[[Tensor, float], Tensor]
"""Noisy samples `(B, ...)` and a time in [0, 1] to the noise in them."""


def scaled_linear_betas(steps: int) -> Table:
    """Variances `(steps,)`, float64, whose roots rise evenly, as Stable Diffusion was trained."""
    betas: Table = np.linspace(0.00085**0.5, 0.012**0.5, steps, dtype=np.float64) ** 2
    return betas


def step_orders(calls: int) -> tuple[int, ...]:
    """Orders of the steps, at most 3, that make `calls` network calls (DPM-Solver-fast of arXiv 2206.00927)."""
    if calls < 1:
        raise MethodError(f"steps must be at least 1, got {calls}")
    whole, rest = divmod(calls, 3)
    # What three does not divide is left to the last steps.
    return (3,) * (whole - 1) + (2, 1) if not rest else (3,) * whole + (rest,)


@dataclass(frozen=True, slots=True)
class _Point:
    """Where a time is on the way: the share of the sample and of the noise, and half its log-SNR."""

    time: float
    alpha: float
    sigma: float
    half_log_snr: float


class DpmSolver:
    """The solver for one noise schedule, its float64 numbers made once; a checkpoint has none of it.

    Args:
        betas: Variances of the training steps, `(T,)`; time n / T is after n of them.
        calls: How often the network is called; times lie evenly from 1 to 1 / T.
    """

    def __init__(self, betas: Table, calls: int) -> None:
        self.orders = step_orders(calls)
        total = len(betas)
        grid = np.arange(1, total + 1) / total
        log_alphas = 0.5 * np.cumsum(np.log1p(-betas))
        times = np.linspace(1.0, 1.0 / total, calls + 1)
        kept = np.interp(times, grid, log_alphas)
        self._points = [_point(*row) for row in zip(times.tolist(), kept.tolist(), strict=True)]

    def sample(self, model: NoiseModel, start: Tensor) -> Tensor:
        """Samples `(B, ...)` from `start`, which is standard normal."""
        x = start
        for begin, end in pairwise(accumulate(self.orders, initial=0)):
            x = self._step(model, x, self._points[begin : end + 1])
        return x

    def _step(self, model: NoiseModel, x: Tensor, points: Sequence[_Point]) -> Tensor:
        """From the first of `points` to the last, with what the model says at all but the last."""
        start, end = points[0], points[-1]
        clean = _clean(model, x, start)
        if len(points) == 2:
            return _moved(x, clean, start, end)
        length = end.half_log_snr - start.half_log_snr
        ratios = [(point.half_log_snr - start.half_log_snr) / length for point in points[1:-1]]
        change = _clean(model, _moved(x, clean, start, points[1]), points[1]) - clean
        if len(points) == 3:
            factor = -0.5 / ratios[0] * end.alpha * math.expm1(-length)
            return _moved(x, clean, start, end) + factor * change
        middle = points[2]
        factor = ratios[1] / ratios[0] * middle.alpha * _second(ratios[1] * length)
        change = _clean(model, _moved(x, clean, start, middle) + factor * change, middle) - clean
        return _moved(x, clean, start, end) + end.alpha * _second(length) / ratios[1] * change


@lru_cache(maxsize=8)
def stable_diffusion_solver(calls: int) -> DpmSolver:
    """The solver for Stable Diffusion's training steps."""
    return DpmSolver(scaled_linear_betas(TRAINING_STEPS), calls)


def _point(time: float, log_alpha: float) -> _Point:
    log_sigma = 0.5 * math.log(-math.expm1(2.0 * log_alpha))
    return _Point(time, math.exp(log_alpha), math.exp(log_sigma), log_alpha - log_sigma)


def _clean(model: NoiseModel, x: Tensor, point: _Point) -> Tensor:
    return (x - point.sigma * model(x, point.time)) / point.alpha


def _moved(x: Tensor, clean: Tensor, start: _Point, end: _Point) -> Tensor:
    """Where `x` would be at `end` if the clean sample stayed what it seems at `start`: the step of first order."""
    length = end.half_log_snr - start.half_log_snr
    return end.sigma / start.sigma * x - end.alpha * math.expm1(-length) * clean


def _second(length: float) -> float:
    """(exp(-h) - 1) / h + 1 of a step's length h in half log-SNR."""
    return math.expm1(-length) / length + 1.0
