"""Throughput and latency of several contenders that take turns in one process.

Each round times every contender once, in an order drawn for that round: a machine that slows down slows them all, and
none always follows the one that leaves the caches cold. Rounds go on until both a shortest time and a fewest count are
reached. The ratio of two contenders is the ratio of their median
times; its interval resamples whole rounds (`bootstrap.py`), so that it stays paired.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tokenmark.measures import bootstrap
from tokenmark.measures.bootstrap import Times


@dataclass(frozen=True, slots=True)
class Timing:
    """How long and how often to time. Part of a run's specification."""

    batches: tuple[int, ...] = (1, 64)
    min_seconds: float = 2.0
    """Shortest measured time per contender and batch size."""
    min_rounds: int = 20
    """Fewest measured rounds."""
    warm_seconds: float = 0.5
    """Shortest warm-up per contender."""
    steady: float = 0.1
    """The warm-up ends when three windows in a row agree within this share..."""
    max_warm_seconds: float = 5.0
    """... or after this long, which is then said."""
    compiled: bool = False
    """Whether the unreduced model is also timed through torch.compile."""


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds per call of each contender, round by round, at one batch size."""

    batch: int
    seconds: dict[str, Times]
    steady: bool
    outputs: dict[str, Tensor] = field(default_factory=dict)
    """What the last timed call of each contender gave; see `audit.py`."""

    def images_per_second(self, name: str) -> float:
        """From the median time of a call."""
        return self.batch / float(np.median(self.seconds[name]))

    def quantile_ms(self, name: str, q: float) -> float:
        """A quantile of the time of a call, in milliseconds."""
        return float(np.quantile(self.seconds[name], q)) * 1e3

    def spread(self, name: str) -> tuple[float, float]:
        """95 % bootstrap interval of `images_per_second`."""
        times = self.seconds[name]
        return bootstrap.interval(len(times), lambda drawn: self.batch / np.median(times[drawn], axis=1))

    def speedup(self, name: str, base: str) -> tuple[float, tuple[float, float]]:
        """How many times faster than `base`: ratio of median times, with a 95 % interval over rounds."""
        one, other = self.seconds[name], self.seconds[base]
        ratio = float(np.median(other) / np.median(one))
        return ratio, bootstrap.interval(
            len(one), lambda drawn: np.median(other[drawn], axis=1) / np.median(one[drawn], axis=1)
        )


def measure(contenders: dict[str, Callable[[Tensor], Tensor]], images: Tensor, timing: Timing) -> Timed:
    """Time all contenders on the same `images`, which lie on the device already; loading is not timed."""
    with torch.inference_mode():
        warmed = [_warm_up(call, images, timing) for call in contenders.values()]
        names = list(contenders)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        outputs: dict[str, Tensor] = {}
        rounds = 0
        draw = np.random.Generator(np.random.Philox(len(names)))
        while rounds < timing.min_rounds or min(sum(times) for times in seconds.values()) < timing.min_seconds:
            for name in draw.permutation(names).tolist():
                spent, outputs[name] = _timed(contenders[name], images)
                seconds[name].append(spent)
            rounds += 1
    return Timed(len(images), {name: np.asarray(times) for name, times in seconds.items()}, all(warmed), outputs)


def _warm_up(call: Callable[[Tensor], Tensor], images: Tensor, timing: Timing) -> bool:
    """Call until three windows agree; whether they ever did."""
    windows: list[float] = []
    start = time.perf_counter()
    while (spent := time.perf_counter() - start) < timing.max_warm_seconds:
        windows.append(min(_timed(call, images)[0] for _ in range(3)))
        last = windows[-3:]
        if spent >= timing.warm_seconds and len(last) == 3 and max(last) <= (1 + timing.steady) * min(last):
            return True
    return False


def _timed(call: Callable[[Tensor], Tensor], images: Tensor) -> tuple[float, Tensor]:
    """Seconds of one call, the device's queue drained on both sides, and what it gave.

    A call returns once its kernels are queued; only the second wait makes the time that of the work. Waiting on the
    host's clock, not on the device's events, counts the launches too: at batch 1 they are what a user waits for.
    """
    synchronize(images.device)
    start = time.perf_counter()
    output = call(images)
    synchronize(images.device)
    return time.perf_counter() - start, output


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what was queued; a processor has nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
