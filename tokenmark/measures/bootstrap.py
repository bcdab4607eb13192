"""Intervals for medians of times that were measured one after another.

Neighbouring rounds are alike (a clock that sinks, a neighbour that works for a while), so whole stretches of rounds are
resampled, not single ones: the circular block bootstrap (Politis and Romano 1992) with blocks of about the square root
of the number of rounds. `tests/tokenmark/measures/test_bootstrap.py` measures how often its intervals hold the truth.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]
RESAMPLES = 2000
LEVEL = (0.025, 0.975)


def rounds(n: int) -> npt.NDArray[np.int64]:
    """Indices `(RESAMPLES, n)` of resampled rounds, always the same for one `n`."""
    block = max(round(n**0.5), 1)
    starts = np.random.Generator(np.random.Philox(0)).integers(0, n, (RESAMPLES, -(-n // block)))
    drawn = (starts[:, :, None] + np.arange(block)) % n
    return np.asarray(drawn.reshape(RESAMPLES, -1)[:, :n])


def interval(n: int, statistic: Callable[[npt.NDArray[np.int64]], Times]) -> tuple[float, float]:
    """95 % interval of what `statistic` makes of resampled rounds `(RESAMPLES, n)`: one number each."""
    low, high = np.quantile(statistic(rounds(n)), LEVEL)
    return float(low), float(high)
