"""Precision and recall by nearest neighbours (Kynkaanniemi et al. 2019, arXiv 1904.06991, section 2).

A set's manifold is the union of balls around its samples, each as wide as the distance to its k-th neighbour in the
set. Precision: the share of generated samples inside the real manifold. Recall: of real samples inside the generated.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tokenmark.errors import DataError
from tokenmark.measures.base import KeptRows
from tokenmark.records import Value

CHUNK = 2048
"""Rows of distances at hand at once: 2,048 x 50,000 in float64 are 0.8 GB."""

ROUNDING = 1e-12
"""A squared distance below this share of both lengths' squares is rounding: the two samples are one."""


@dataclass(frozen=True, slots=True)
class PrecisionRecall:
    """Both shares, in [0, 1]."""

    precision: float
    recall: float


def precision_recall(generated: Tensor, real: Tensor, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall of features `(N, D)` and `(M, D)`, in float64 on the device that they are on.

    Raises:
        DataError: a set has no more than `k` samples, a feature is not finite, or the widths differ.
    """
    generated, real = _checked(generated, "generated", k), _checked(real, "real", k)
    if generated.shape[1] != real.shape[1]:
        raise DataError(
            f"generated features have {generated.shape[1]} dimensions, real ones {real.shape[1]}:"
            " take both from the same network and layer"
        )
    # Differences do not change by a shift, and squares of numbers near zero lose fewer digits.
    middle = real.mean(dim=0)
    generated, real = generated - middle, real - middle
    return PrecisionRecall(
        precision=_share_inside(generated, real, _squared_radii(real, k)),
        recall=_share_inside(real, generated, _squared_radii(generated, k)),
    )


def _checked(features: Tensor, whose: str, k: int) -> Tensor:
    if len(features) <= k:
        raise DataError(
            f"precision and recall by {k} neighbours need more than {k} {whose} samples, not {len(features)}"
        )
    if not bool(torch.isfinite(features).all()):
        raise DataError(f"a {whose} feature is NaN or infinite: the images or the feature network's weights are broken")
    return features.double()


def _squared_radii(features: Tensor, k: int) -> Tensor:
    """`(N,)`: squared distance to the k-th neighbour; the nearest of all is the sample itself."""
    return torch.cat([rows.kthvalue(k + 1, dim=1).values for rows in _squared_distances(features, features)])


def _share_inside(features: Tensor, centres: Tensor, squared_radii: Tensor) -> float:
    inside = sum(int((rows <= squared_radii).any(dim=1).sum()) for rows in _squared_distances(features, centres))
    return inside / len(features)


def _squared_distances(a: Tensor, b: Tensor) -> Iterator[Tensor]:
    """Rows of `(N, M)` squared distances, piece by piece."""
    lengths = b.square().sum(dim=1)
    for part in a.split(CHUNK):
        sums = part.square().sum(dim=1)[:, None] + lengths
        squared = torch.addmm(sums, part, b.T, alpha=-2.0)
        yield squared.masked_fill_(squared < ROUNDING * sums, 0.0)


class PrecisionRecallMeasure(KeptRows):
    """Precision and recall of generated images against the features of real ones."""

    def __init__(self, real: npt.NDArray[Any], k: int = 3, device: torch.device | None = None) -> None:
        super().__init__()
        self._device = device or torch.device("cpu")
        self._real, self._k = torch.from_numpy(np.array(real)), k

    def compute(self) -> list[Value]:
        """`precision` over the generated images and `recall` over the real ones.

        Each error is that of a share of so many draws, for the other set's manifold as it is.
        """
        generated = torch.from_numpy(self.all())
        found = precision_recall(generated.to(self._device), self._real.to(self._device), self._k)
        shares = (("precision", found.precision, len(generated)), ("recall", found.recall, len(self._real)))
        return [Value(name=name, value=p, n=n, se=float(np.sqrt(p * (1.0 - p) / n))) for name, p, n in shares]
