"""Inception score (Salimans et al. 2016, arXiv 1606.03498, section 4): exp E KL(p(y|x) || p(y)).

With one split it does not depend on the order of samples. With several, each split has its own p(y), so that samples
sorted by class score far lower: ADM's evaluator takes consecutive splits of 5,000, and 50,000 samples in the order of
their classes gave about 60 there instead of more than 200.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.special

from tokenmark.errors import DataError
from tokenmark.measures.base import KeptRows
from tokenmark.protocols import Protocol
from tokenmark.records import Value

Order = Literal["consecutive", "shuffled"]
"""How samples fall into splits: as they come (ADM), or drawn anew (torch-fidelity)."""
CHUNK = 4096
"""Samples whose float64 class scores are at hand at once."""


@dataclass(frozen=True, slots=True)
class InceptionScore:
    """The mean over splits with its error."""

    value: float
    se: float
    """One split: the delta method's. Several: their spread over the root of their number."""
    spread: float
    """Standard deviation of the splits' scores, n in the variance: what papers print behind the ± (0 for one split)."""


def inception_score(
    logits: npt.NDArray[Any], splits: int = 1, order: Order = "shuffled", seed: int = 0
) -> InceptionScore:
    """Score of class scores `(N, classes)` before the softmax, without bias as the releases have them.

    Args:
        logits: of all samples.
        splits: how many parts of nearly equal size are scored each by itself.
        order: how samples fall into parts; without effect on one.
        seed: of the shuffling.

    Raises:
        DataError: fewer than two samples for each split, or a class score is not finite.
    """
    n = len(logits)
    if n < 2 * splits:
        raise DataError(f"an Inception score with {splits} splits needs at least {2 * splits} samples, here are {n}")
    if not np.isfinite(logits).all():
        raise DataError("a class score is NaN or infinite: the images or the feature network's weights are broken")
    shuffled = order == "shuffled" and splits > 1
    places = np.random.Generator(np.random.Philox(seed)).permutation(n) if shuffled else np.arange(n)
    parts = [_divergences(logits, places[i * n // splits : (i + 1) * n // splits]) for i in range(splits)]
    scores = np.exp([part.mean() for part in parts])
    # The derivative of the score by one sample's weight is the score times its divergence less their mean.
    error = scores[0] * parts[0].std(ddof=1) / np.sqrt(n) if splits == 1 else scores.std(ddof=1) / np.sqrt(splits)
    return InceptionScore(float(scores.mean()), float(error), float(scores.std()))


def _divergences(logits: npt.NDArray[Any], places: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """KL(p(y|x) || p(y)) of the samples in these places `(N,)` in nats, where p(y) is the mean over them."""
    pieces = [places[at : at + CHUNK] for at in range(0, len(places), CHUNK)]
    # in logarithms, piece by piece: 50,000 x 1,008 scores in float64 would be 400 MB for each step
    sums = [scipy.special.logsumexp(_log_softmax(logits[piece]), axis=0) for piece in pieces]
    log_mean = scipy.special.logsumexp(sums, axis=0) - np.log(len(places))
    return np.concatenate([_divergence(_log_softmax(logits[piece]), log_mean) for piece in pieces])


def _log_softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.asarray(scipy.special.log_softmax(logits.astype(np.float64), axis=1))


def _divergence(log_p: npt.NDArray[np.float64], log_mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray((np.exp(log_p) * (log_p - log_mean)).sum(axis=1))


class InceptionScoreMeasure(KeptRows):
    """The Inception score of generated images, from the class scores of all of them."""

    rows_are = "logits"

    def __init__(self, splits: int = 1, order: Order = "shuffled", seed: int = 0) -> None:
        super().__init__()
        self._splits, self._order, self._seed = splits, order, seed

    @classmethod
    def under(cls, protocol: Protocol, samples: int, seed: int) -> "InceptionScoreMeasure":
        """With the splits and the order that a protocol names for so many images."""
        order: Order = "shuffled" if protocol.order == "shuffled" else "consecutive"
        return cls(protocol.splits(samples), order, seed)

    def compute(self) -> list[Value]:
        """`inception_score` with its error."""
        logits = self.all()
        score = inception_score(logits, self._splits, self._order, self._seed)
        return [Value(name="inception_score", value=score.value, n=len(logits), se=score.se)]
