"""Top-1 accuracy with a Wilson interval, and the paired difference from another model (McNemar)."""

from collections.abc import Sequence

import numpy as np
import scipy.stats

from tokenmark.measures.base import PerImage, State, concatenated
from tokenmark.records import Value

LEVEL = 0.95


def wilson(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval for a share of `n` (Wilson 1927)."""
    z = float(scipy.stats.norm.ppf(0.5 + level / 2.0))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(float(centre - half), 0.0), min(float(centre + half), 1.0)


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p-value that two models differ, from the images only one of them gets right (McNemar 1947)."""
    if gained + lost == 0:
        return 1.0
    return float(scipy.stats.binomtest(min(gained, lost), gained + lost, 0.5).pvalue)


def paired_difference(gained: int, lost: int, n: int, level: float = LEVEL) -> tuple[float, float, tuple[float, float]]:
    """Difference of two accuracies on the same `n` images, its standard error and Wald interval.

    `gained` images are right only with the judged model, `lost` only with the other. The counts are smoothed by
    half an image each for the error (Agresti and Min 2005), so that no discordant image does not mean no doubt.
    """
    z = float(scipy.stats.norm.ppf(0.5 + level / 2.0))
    difference = (gained - lost) / n
    up, down = (gained + 0.5) / (n + 2), (lost + 0.5) / (n + 2)
    se = float(np.sqrt((up + down - (up - down) ** 2) / (n + 2)))
    return difference, se, (difference - z * se, difference + z * se)


def share_value(name: str, correct: int, n: int) -> Value:
    """A share with its Wilson interval."""
    return Value(name=name, value=correct / n, n=n, interval=wilson(correct, n))


class Accuracy:
    """Top-1 of a judged model, and of the model that it is paired with, on the same images."""

    def __init__(self, name: str = "top1", *, paired: bool = False) -> None:
        self.name = name
        self._paired = paired
        self._correct, self._base = PerImage(), PerImage()

    def update(self, correct: np.ndarray, base: np.ndarray | None = None) -> None:
        """Add one batch of right (1) or wrong (0), `(B,)`; `base` is the other model's."""
        self._correct.add(correct.astype(np.float64))
        if base is not None:
            self._base.add(base.astype(np.float64))

    def state(self) -> State:
        """Right or wrong, image by image."""
        return {"correct": self._correct.all(), "base": self._base.all()}

    def load(self, state: State) -> None:
        """Take over an unfinished run's."""
        self._correct.replace(state["correct"])
        self._base.replace(state["base"])

    def join(self, states: Sequence[State]) -> State:
        """Right or wrong, one after the other."""
        return concatenated(states)

    def compute(self) -> list[Value]:
        """The accuracy; if paired, also `<name>_difference` and `<name>_mcnemar_p`."""
        correct = self._correct.all()
        n = len(correct)
        values = [share_value(self.name, int(correct.sum()), n)]
        if self._paired:
            base = self._base.all()
            gained, lost = int((correct > base).sum()), int((correct < base).sum())
            difference, se, interval = paired_difference(gained, lost, n)
            values += [
                Value(name=f"{self.name}_difference", value=difference, n=n, se=se, interval=interval),
                Value(name=f"{self.name}_mcnemar_p", value=mcnemar(gained, lost), n=n),
            ]
        return values
