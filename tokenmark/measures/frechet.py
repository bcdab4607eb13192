"""Fréchet distance between Gaussians fitted to features, with its standard error.

d^2 = |m - m_r|^2 + Tr(S) + Tr(S_r) - 2 Tr (S S_r)^(1/2) (Dowson and Landau 1982; Heusel et al. 2017, section 3).
With S_r = L L^T the last trace is the sum of the roots of the eigenvalues of L^T S L, which is symmetric. Where
samples are fewer than dimensions the thin form is exact: singular values of (X - m) L / sqrt(n - 1) (Mathiasen and
Hvilshoj 2020, arXiv 2009.14075).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg

from tokenmark.errors import DataError
from tokenmark.measures.base import KeptRows, State, concatenated
from tokenmark.measures.moments import CHUNK, Gaussian, Matrix, Moments
from tokenmark.measures.reference import ReferenceRows
from tokenmark.records import Value

Features = npt.NDArray[Any]

HALVES = 8
"""Random halves over which the distance at half the samples is averaged for the value at infinitely many."""


def distance(features: Features, reference: Gaussian, sample: Gaussian | None = None) -> float:
    """Fréchet distance of features `(N, D)` from a reference; never below zero.

    `sample` is what was fitted to `features`, where it is at hand.

    Raises:
        DataError: the features are fewer than two, not finite, all constant, or not as wide as the reference's.
    """
    sample = sample or Gaussian.of(features)
    if sample.n > features.shape[1]:
        return between(sample, reference)
    _same_width(sample, reference)
    thin = (features - sample.mean) @ reference.factor / np.sqrt(sample.n - 1)
    return _assembled(sample, reference, np.linalg.svd(thin, compute_uv=False))


def between(sample: Gaussian, reference: Gaussian) -> float:
    """Fréchet distance from statistics alone; `reference` keeps its factor for the next call.

    Raises:
        DataError: the two are not of the same width.
    """
    _same_width(sample, reference)
    values = np.linalg.eigvalsh(reference.sandwich(sample.covariance))
    # The product has no higher rank than either side: the roots of what rounding left of its zeros would add up.
    values = values[len(values) - min(sample.rank, reference.rank) :]
    return _assembled(sample, reference, np.sqrt(np.clip(values, 0.0, None)))


def _assembled(sample: Gaussian, reference: Gaussian, roots: Matrix) -> float:
    gap = sample.mean - reference.mean
    traces = np.trace(sample.covariance) + np.trace(reference.covariance)
    return max(float(gap @ gap + traces - 2.0 * roots.sum()), 0.0)


def _same_width(sample: Gaussian, reference: Gaussian) -> None:
    if len(sample.mean) != len(reference.mean):
        raise DataError(
            f"features have {len(sample.mean)} dimensions, the reference's {len(reference.mean)}:"
            " take both from the same network and layer"
        )


def influence(features: Features, reference: Gaussian, sample: Gaussian | None = None) -> Matrix:
    """How each sample `(N, D)` pulls the distance: its variance over N is the delta method's squared error.

    phi(x) = 2 (m - m_r)^T (x - m) + (x - m)^T (I - T)(x - m) with T = L (L^T S L)^(-1/2) L^T, the linear map that
    carries the sample's Gaussian to the reference's. `sample` is what was fitted to `features`, where it is at hand.
    """
    sample = sample or Gaussian.of(features)
    values, vectors = scipy.linalg.eigh(reference.sandwich(sample.covariance), lower=True)
    floor = max(values.max(), 0.0) * 1e-10
    inverse_root = np.where(values > floor, 1.0 / np.sqrt(np.clip(values, floor or 1.0, None)), 0.0)
    carry = reference.factor @ (vectors * np.sqrt(inverse_root))
    gap = 2.0 * (sample.mean - reference.mean)
    phi = np.empty(len(features))
    for at in range(0, len(features), CHUNK):
        centred = features[at : at + CHUNK] - sample.mean
        phi[at : at + CHUNK] = centred @ gap + (centred**2).sum(axis=1) - ((centred @ carry) ** 2).sum(axis=1)
    return phi


def standard_error(
    features: Features, reference: Gaussian, paired: Features | None = None, sample: Gaussian | None = None
) -> float:
    """Delta-method standard error of the distance.

    Args:
        features: `(N, D)`, of the images that are judged.
        reference: what they are judged against.
        paired: the reference's own features, in the same order, where they are of the same images before
            reconstruction. Then the error speaks of drawing other images; otherwise of drawing other samples
            against a fixed reference.
        sample: what was fitted to `features`, where it is at hand.
    """
    sample = sample or Gaussian.of(features)
    phi = influence(features, reference, sample)
    if paired is not None:
        phi = phi + influence(paired, sample, reference)
    return float(phi.std(ddof=1) / np.sqrt(len(phi)))


def infinite(features: Features, reference: Gaussian, seed: int = 0) -> float:
    """The distance extrapolated to infinitely many samples: 2 F_N - mean F_(N/2).

    The bias falls as 1 / N (Chong and Forsyth 2020, arXiv 1911.07023); F_(N/2) is averaged over random halves.

    Raises:
        DataError: fewer than four samples, or what `distance` raises.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    whole = Moments.of(features)
    halves = [part for _ in range(HALVES) for part in _halves(features, whole, rng.permutation(whole.n))]
    return 2.0 * distance(features, reference) - float(np.mean([between(half, reference) for half in halves]))


def _halves(features: Features, whole: Moments, order: npt.NDArray[np.int64]) -> tuple[Gaussian, Gaussian]:
    """Both halves of the samples in this order; the second is what the sums of the first leave of the whole."""
    first, second = Moments(whole.shift), Moments(whole.shift)
    first.add(features[order[: whole.n // 2]])
    second.load(whole.sums() - first.sums())
    return first.gaussian(), second.gaussian()


class FrechetDistance(KeptRows):
    """Distance of judged images from a fixed reference; its error needs their features one by one."""

    def __init__(self, name: str, reference: Gaussian, *, extrapolate: bool = True) -> None:
        super().__init__()
        self.name = name
        self._reference, self._extrapolate = reference, extrapolate

    def compute(self) -> list[Value]:
        """The distance with its error and, where it is wanted, the value for infinitely many samples.

        Neither is given where samples are too few for it: a singular covariance says nothing of its inverse.
        """
        features, reference = self.all(), self._reference
        sample = Gaussian.of(features)
        n, width = features.shape
        found = distance(features, reference, sample)
        error = standard_error(features, reference, sample=sample) if n > width else None
        values = [Value(name=self.name, value=found, n=n, se=error)]
        if self._extrapolate and n // 2 > width:
            values.append(Value(name=f"{self.name}_infinite", value=infinite(features, reference), n=n))
        return values


class PairedDistance(KeptRows):
    """Distance of reconstructions from their originals: both sides' features are kept, image by image."""

    def __init__(self, name: str, originals: ReferenceRows) -> None:
        super().__init__()
        self.name = name
        self._originals, self._first = originals, 0

    def update(self, rows: npt.NDArray[np.float32], first: int = 0) -> None:
        """Add the features of one batch, `(B, D)`, whose first image has this index; the originals' are known."""
        if not len(self._rows):
            self._first = first
        super().update(rows)

    def state(self) -> State:
        """Both sides so far, and which image came first; nothing before it."""
        if not len(self._rows):
            return {}
        originals = self._originals.view(self._first, self._first + len(self._rows))
        return {**super().state(), "originals": originals, "first": np.array([self._first])}

    def load(self, state: State) -> None:
        """Take over both sides."""
        super().load(state)
        if len(self._rows):
            self._first = int(state["first"][0])
            self._originals.put(self._first, state["originals"].astype(np.float32, copy=False))

    def join(self, states: Sequence[State]) -> State:
        """Both sides of several processes one after the other; the first image is the first process'."""
        joined = concatenated(states)
        return {**joined, "first": joined["first"][:1]} if joined else joined

    def compute(self) -> list[Value]:
        """The distance with its error, which speaks of drawing other images."""
        features = self.all()
        n = len(features)
        originals = self._originals.view(self._first, self._first + n)
        reference, sample = Gaussian.of(originals), Gaussian.of(features)
        error = standard_error(features, reference, originals, sample) if n > features.shape[1] else None
        return [Value(name=self.name, value=distance(features, reference, sample), n=n, se=error)]
