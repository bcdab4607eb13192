"""Features of reference images, computed once for all runs of a process that see them alike."""

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]


class ReferenceRows:
    """Features `(N, D)` by index of the image; those that are not known yet are computed when they are asked for."""

    def __init__(self, samples: int) -> None:
        self._known = np.zeros(samples, bool)
        self._rows = np.zeros((0, 0), np.float32)

    def of(self, start: int, stop: int, see: Callable[[], Rows]) -> Rows:
        """Features of these images; `see` gives them, `(stop - start, D)`, where some are not known."""
        if not self._known[start:stop].all():
            self.put(start, see())
        return self.view(start, stop)

    def put(self, start: int, rows: Rows) -> None:
        """Take over the features of consecutive images."""
        if not len(self._rows):
            self._rows = np.zeros((len(self._known), rows.shape[1]), np.float32)
        stop = start + len(rows)
        self._rows[start:stop] = rows
        self._known[start:stop] = True

    def view(self, start: int, stop: int) -> Rows:
        """Features that are known, `(stop - start, D)`, not to be written to."""
        assert self._known[start:stop].all()  # noqa: S101  whoever asks has computed them
        return self._rows[start:stop]


@functools.lru_cache(maxsize=2)
def shared(samples: int, *_seen_as: str) -> ReferenceRows:
    """The rows of so many images, the same for whoever sees the same images in the same way.

    What the way is made of decides every digit: data, protocol, weights, batch size and device, in words.
    """
    return ReferenceRows(samples)
