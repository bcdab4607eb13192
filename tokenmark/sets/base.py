"""What an image set offers: its images in batches, and statistics where it brings some."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""`(B, H, W, 3)`."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Mean `(D,)` and covariance `(D, D)` of features, as somebody computed them; of how many images is not said."""

    mean: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ImageSet:
    """8-bit images in a fixed order."""

    path: Path
    kind: str
    n: int
    """How many images; 0 where there are statistics alone."""
    batches: Callable[[int], Iterator[Pixels]]
    """Batches of at most so many images, all of one size within a batch, in order."""
    statistics: Mapping[str, Statistics] = field(default_factory=dict)
    """`pool` (2,048 features) and `spatial` (sFID's 2,023), where the file brings them."""
