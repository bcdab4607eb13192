"""Fréchet distance between Gaussians fitted to features, with its standard error.

d^2 = |m - m_r|^2 + Tr(S) + Tr(S_r) - 2 Tr (S S_r)^(1/2) (Dowson and Landau 1982; Heusel et al. 2017, section 3).
With S_r = L L^T the last trace is the sum of the roots of the eigenvalues of L^T S L, which is symmetric. Where
samples are fewer than dimensions the thin form is exact: singular values of (X - m) L / sqrt(n - 1) (Mathiasen and
Hvilshoj 2020, arXiv 2009.14075).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.linalg

from tokenmark.errors import DataError
from tokenmark.measures.base import State, concatenated
from tokenmark.records import Value

Matrix = npt.NDArray[np.float64]

HALVES = 8
"""Random halves over which the distance at half the samples is averaged for the value at infinitely many."""


@dataclass(frozen=True)
class Gaussian:
    """Mean `(D,)` and unbiased covariance `(D, D)` of a feature set."""

    mean: Matrix
    covariance: Matrix
    n: int

    @classmethod
    def of(cls, features: Matrix) -> "Gaussian":
        """Fit to features `(N, D)`.

        Raises:
            DataError: fewer than two samples, or a feature is not finite.
        """
        features = np.asarray(features, np.float64)
        if len(features) < 2:
            raise DataError(f"a Fréchet distance needs at least 2 samples on each side, here are {len(features)}")
        if not np.isfinite(features).all():
            raise DataError("a feature is NaN or infinite: the images or the feature network's weights are broken")
        mean = features.mean(axis=0)
        centred = features - mean
        return cls(mean, centred.T @ centred / (len(features) - 1), len(features))

    @cached_property
    def factor(self) -> Matrix:
        """L with L L^T = covariance: Cholesky, or from the eigenvectors where the covariance is singular."""
        try:
            return np.asarray(np.linalg.cholesky(self.covariance))
        except np.linalg.LinAlgError:
            values, vectors = scipy.linalg.eigh(self.covariance)
            return np.asarray(vectors * np.sqrt(np.clip(values, 0.0, None)))


def distance(features: Matrix, reference: Gaussian) -> float:
    """Fréchet distance of features `(N, D)` from a reference; never below zero."""
    sample = Gaussian.of(features)
    if sample.n <= features.shape[1]:
        thin = (features - sample.mean) @ reference.factor / np.sqrt(sample.n - 1)
        roots = np.linalg.svd(thin, compute_uv=False)
    else:
        product = reference.factor.T @ sample.covariance @ reference.factor
        roots = np.sqrt(np.clip(scipy.linalg.eigvalsh(product), 0.0, None))
    gap = sample.mean - reference.mean
    traces = np.trace(sample.covariance) + np.trace(reference.covariance)
    return max(float(gap @ gap + traces - 2.0 * roots.sum()), 0.0)


def influence(features: Matrix, reference: Gaussian) -> Matrix:
    """How each sample `(N, D)` pulls the distance: its variance over N is the delta method's squared error.

    phi(x) = 2 (m - m_r)^T (x - m) + (x - m)^T (I - T)(x - m) with T = L (L^T S L)^(-1/2) L^T, the linear map that
    carries the sample's Gaussian to the reference's.
    """
    sample = Gaussian.of(features)
    centred = features - sample.mean
    values, vectors = scipy.linalg.eigh(reference.factor.T @ sample.covariance @ reference.factor)
    floor = max(values.max(), 0.0) * 1e-10
    inverse_root = np.where(values > floor, 1.0 / np.sqrt(np.clip(values, floor or 1.0, None)), 0.0)
    carried = centred @ reference.factor @ vectors * np.sqrt(inverse_root)
    linear = 2.0 * centred @ (sample.mean - reference.mean)
    return np.asarray(linear + (centred**2).sum(axis=1) - (carried**2).sum(axis=1))


def standard_error(features: Matrix, reference: Gaussian, paired: Matrix | None = None) -> float:
    """Delta-method standard error of the distance.

    Args:
        features: `(N, D)`, of the images that are judged.
        reference: what they are judged against.
        paired: the reference's own features, in the same order, where they are of the same images before
            reconstruction. Then the error speaks of drawing other images; otherwise of drawing other samples
            against a fixed reference.
    """
    phi = influence(features, reference)
    if paired is not None:
        phi = phi + influence(paired, Gaussian.of(features))
    return float(phi.std(ddof=1) / np.sqrt(len(phi)))


def infinite(features: Matrix, reference: Gaussian, seed: int = 0) -> float:
    """The distance extrapolated to infinitely many samples: 2 F_N - mean F_(N/2).

    The bias falls as 1 / N (Chong and Forsyth 2020, arXiv 1911.07023); F_(N/2) is averaged over random halves.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    half = len(features) // 2
    order = [rng.permutation(len(features)) for _ in range(HALVES)]
    halves = [distance(features[part], reference) for places in order for part in (places[:half], places[half:])]
    return 2.0 * distance(features, reference) - float(np.mean(halves))


class FrechetDistance:
    """Features of judged images, kept as float32 until the end: the standard error needs them one by one."""

    def __init__(self, name: str, reference: Matrix, *, paired: bool) -> None:
        self.name = name
        self._reference = np.asarray(reference, np.float64)
        self._gaussian = Gaussian.of(self._reference)
        self._paired = paired
        self._parts: list[npt.NDArray[np.float32]] = []

    def update(self, features: npt.NDArray[np.float32]) -> None:
        """Add the features of one batch, `(B, D)`."""
        self._parts.append(features)

    def state(self) -> State:
        """The features so far."""
        return {"features": np.concatenate(self._parts)} if self._parts else {}

    def load(self, state: State) -> None:
        """Take over features."""
        self._parts = [state["features"].astype(np.float32)] if "features" in state else []

    def join(self, states: Sequence[State]) -> State:
        """Features one after the other."""
        return concatenated(states)

    def compute(self) -> list[Value]:
        """The distance with its error; unpaired sets also get the value for infinitely many samples."""
        features = np.concatenate(self._parts).astype(np.float64)
        n = len(features)
        error = standard_error(features, self._gaussian, self._reference if self._paired else None)
        values = [Value(name=self.name, value=distance(features, self._gaussian), n=n, se=error)]
        if not self._paired:
            values.append(Value(name=f"{self.name}_infinite", value=infinite(features, self._gaussian), n=n))
        return values
