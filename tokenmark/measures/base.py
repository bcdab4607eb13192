"""What every measure offers: it is updated with batches, kept when a run is killed, and computed at the end."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from tokenmark.records import Value

Array: TypeAlias = npt.NDArray[np.generic]
State: TypeAlias = dict[str, Array]


class Measure(Protocol):
    """A running measure. `load(state())` of a fresh one goes on exactly where the old one stood."""

    def state(self) -> State:
        """Everything summed so far, as arrays."""
        ...

    def load(self, state: State) -> None:
        """Take over what an unfinished run had."""
        ...

    def join(self, states: Sequence[State]) -> State:
        """One state of the shares of several processes, in the order of their images."""
        ...

    def compute(self) -> list[Value]:
        """The values with their errors."""
        ...


def concatenated(states: Sequence[State]) -> State:
    """Shares whose arrays hold something per image."""
    names = {name for state in states for name in state}
    return {name: np.concatenate([state[name] for state in states if name in state]) for name in sorted(names)}


def added(states: Sequence[State]) -> State:
    """Shares whose arrays are sums over images."""
    return {name: np.sum([state[name] for state in states], axis=0) for name in states[0]}


class PerImage:
    """One float64 per image, in the order of images: the state behind every mean over images."""

    def __init__(self) -> None:
        self._parts: list[npt.NDArray[np.float64]] = []

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Append the values of one batch, `(B,)`."""
        self._parts.append(values)

    def all(self) -> npt.NDArray[np.float64]:
        """The values of all images so far, `(N,)`."""
        return np.concatenate(self._parts) if self._parts else np.zeros(0)

    def replace(self, values: Array) -> None:
        """Take over the values of an unfinished run."""
        self._parts = [values.astype(np.float64)]


class Rows:
    """Float32 rows `(N, D)` in one array that grows, so that nobody who reads them needs a copy."""

    def __init__(self) -> None:
        self._room = np.zeros((0, 0), np.float32)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def add(self, rows: npt.NDArray[np.float32]) -> None:
        """Append `(B, D)`."""
        end = self._n + len(rows)
        if end > len(self._room):
            self._grow(max(end, 2 * self._n), rows.shape[1])
        self._room[self._n : end] = rows
        self._n = end

    def all(self) -> npt.NDArray[np.float32]:
        """All rows, `(N, D)`, not to be written to; `(0, 0)` before the first."""
        return self._room[: self._n]

    def replace(self, rows: npt.NDArray[Any] | None) -> None:
        """Hold these rows and no others."""
        self._room = np.zeros((0, 0), np.float32) if rows is None else rows.astype(np.float32)
        self._n = len(self._room)

    def _grow(self, room: int, width: int) -> None:
        larger = np.zeros((room, width), np.float32)  # pages that nothing was written to take no memory
        if self._n:
            larger[: self._n] = self._room[: self._n]
        self._room = larger


class KeptRows:
    """One float32 row per image, in the order of images: the state of measures that need all of them at the end."""

    rows_are = "features"
    """What the rows are; their name in the state."""

    def __init__(self) -> None:
        self._rows = Rows()

    def update(self, rows: npt.NDArray[np.float32]) -> None:
        """Add the rows of one batch, `(B, D)`."""
        self._rows.add(rows)

    def all(self) -> npt.NDArray[np.float32]:
        """The rows of all images so far, `(N, D)`; `(0, 0)` before the first."""
        return self._rows.all()

    def state(self) -> State:
        """The rows so far, or nothing."""
        return {self.rows_are: self.all()} if len(self._rows) else {}

    def load(self, state: State) -> None:
        """Take over the rows that an unfinished run had."""
        self._rows.replace(state.get(self.rows_are))

    def join(self, states: Sequence[State]) -> State:
        """The rows of several processes one after the other."""
        return concatenated(states)


def mean_value(name: str, values: npt.NDArray[np.float64]) -> Value:
    """The mean over images with its standard error (n - 1 in the variance)."""
    n = len(values)
    se = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    return Value(name=name, value=float(values.mean()), n=n, se=se)
