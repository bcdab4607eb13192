"""Mean and covariance of features, from float64 sums that are streamed on the device and merged by addition.

The sums are of deviations from a fixed shift, so that features far from zero lose no digits: sum (x - a) and
sum (x - a)(x - a)^T. Chan, Golub and LeVeque 1983 (The American Statistician 37(3)) give the loss without a shift.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
import torch
from torch import Tensor

from tokenmark.errors import DataError

Matrix = npt.NDArray[np.float64]

CHUNK = 1024
"""Samples per step where all features are at hand: their float64 copy stays small."""

ROUNDING = 1e-7
"""A deviation this small beside the mean or shift is rounding, as float32 features have: the feature is constant."""


@dataclass(frozen=True)
class Gaussian:
    """Mean `(D,)` and unbiased covariance `(D, D)` of a feature set, and how many samples they are of."""

    mean: Matrix
    covariance: Matrix
    n: int
    thin: Matrix | None = None
    """`(D, n)`, a factor of the covariance, where samples are fewer than features."""

    @classmethod
    def of(cls, features: npt.NDArray[Any]) -> "Gaussian":
        """Fit to features `(N, D)`.

        Raises:
            DataError: fewer than two samples, a feature is not finite, or all features are constant.
        """
        found = Moments.of(features).gaussian()
        if found.n > len(found.mean):
            return found
        # (X - m)^T / sqrt(n - 1) is a factor by definition: no root of a large singular matrix is needed
        return replace(found, thin=(features.astype(np.float64) - found.mean).T / np.sqrt(found.n - 1))

    @property
    def rank(self) -> int:
        """The most directions in which `n` samples can vary."""
        return min(self.n - 1, len(self.mean))

    @cached_property
    def factor(self) -> Matrix:
        """L with L L^T = covariance: the thin one, Cholesky, or from eigenvectors where the covariance is singular."""
        if self.thin is not None:
            return self.thin
        if self._cholesky is not None:
            return self._cholesky
        values, vectors = scipy.linalg.eigh(self.covariance)
        return np.asarray(vectors * np.sqrt(np.clip(values, 0.0, None)))

    def sandwich(self, covariance: Matrix) -> Matrix:
        """The lower triangle of L^T S L `(D, D)`, for the eigenvalues of S times this covariance; S is symmetric."""
        if self._cholesky is None:
            return np.asarray(self.factor.T @ covariance @ self.factor)
        product, failed = scipy.linalg.lapack.dsygst(covariance, self._cholesky, itype=2, lower=1)
        assert failed == 0  # noqa: S101  only a malformed call fails
        return np.asarray(product)

    @cached_property
    def _cholesky(self) -> Matrix | None:
        if self.thin is not None:
            return None
        try:
            return np.asfortranarray(np.linalg.cholesky(self.covariance))
        except np.linalg.LinAlgError:
            return None


class Moments:
    """Running sums of features `(B, D)`, on the device of `shift`.

    Every process of one measurement takes the same `shift` `(D,)`, best near the mean: then the sums of all are
    those of `sums()` added up, whatever dealt the images.
    """

    def __init__(self, shift: Tensor) -> None:
        self.shift = shift.double()
        width = len(shift)
        self.n = 0
        self._total = self.shift.new_zeros(width)
        self._outer = self.shift.new_zeros(width, width)

    @classmethod
    def of(cls, features: npt.NDArray[Any]) -> "Moments":
        """The sums of features `(N, D)` about their own mean.

        Raises:
            DataError: there are fewer than two.
        """
        _enough(len(features))
        with np.errstate(invalid="ignore"):  # NaN and infinity are told of in one place, at the end
            moments = cls(torch.from_numpy(features.mean(axis=0, dtype=np.float64)))
        moments.add(features)
        return moments

    def add(self, features: npt.NDArray[Any]) -> None:
        """Add features `(N, D)` that are all at hand, piece by piece."""
        for at in range(0, len(features), CHUNK):
            self.update(torch.from_numpy(np.array(features[at : at + CHUNK])))

    def update(self, features: Tensor) -> None:
        """Add one batch `(B, D)`, of any float type and on any device."""
        centred = features.to(self.shift.device) - self.shift  # float64, as the shift is
        self.n += len(centred)
        self._total += centred.sum(dim=0)
        _add_gram(self._outer, centred)

    def sums(self) -> Tensor:
        """Everything summed so far, `(1 + D + D * D,)` float64: to be kept, all-reduced or added."""
        count = self._total.new_tensor([self.n])
        return torch.cat([count, self._total, self._outer.flatten()])

    def load(self, sums: Tensor) -> None:
        """Stand where `sums` were taken, of this or of several with the same shift."""
        width = len(self.shift)
        count, total, outer = sums.to(self.shift).split([1, width, width * width])
        self.n = round(count.item())
        self._total, self._outer = total.clone(), outer.reshape(width, width).clone()

    def gaussian(self) -> Gaussian:
        """Mean and covariance of all that was added.

        Raises:
            DataError: fewer than two samples, a feature is not finite, or all features are constant.
        """
        _enough(self.n)
        mean = self.shift + self._total / self.n
        # Sums of squares tell of every NaN or infinity that went in: neither goes away by adding.
        if not bool(torch.isfinite(mean).all() and torch.isfinite(self._outer.diagonal()).all()):
            raise DataError("a feature is NaN or infinite: the images or the feature network's weights are broken")
        half = torch.tril(self._outer - torch.outer(self._total, self._total / self.n)) / (self.n - 1)
        covariance = half + torch.tril(half, diagonal=-1).T
        size = torch.maximum(mean.abs(), self.shift.abs())
        if bool((covariance.diagonal() <= (ROUNDING * size) ** 2).all()):
            raise DataError(
                f"all {self.n} samples have the same features, so they have no distribution to compare:"
                " the images are all alike, or the feature network's weights are broken"
            )
        return Gaussian(mean.cpu().numpy(), covariance.cpu().numpy(), self.n)


def _enough(n: int) -> None:
    if n < 2:
        raise DataError(f"a Fréchet distance needs at least 2 samples on each side, here are {n}")


def _add_gram(outer: Tensor, x: Tensor) -> None:
    """Add X^T X of `(B, D)` to the lower triangle of `outer`; what stands above it has no meaning."""
    if x.device.type == "cpu" and len(x):
        # In place and half the work, neither of which torch offers. The transposed arrays are as BLAS wants them.
        scipy.linalg.blas.dsyrk(1.0, x.numpy().T, beta=1.0, c=outer.numpy().T, overwrite_c=1)
    else:
        outer.addmm_(x.T, x)
