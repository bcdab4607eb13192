"""What a task offers to the runner."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from pydantic import JsonValue
from torch import Tensor

from tokenmark.errors import MethodError
from tokenmark.kept import Keep
from tokenmark.measures.base import Measure, State
from tokenmark.records import Value
from tokenmark.shelf import Shelf
from tokenmark.spec import RunSpec

SEEN = frozenset({"rfid", "inception-score", "gfid", "sfid", "precision-recall", "class-accuracy"})
"""Measures for which a feature network sees the images."""


@dataclass(frozen=True, slots=True)
class Context:
    """Where a run takes place."""

    device: torch.device
    data: Path
    shelf: Shelf = field(default_factory=Shelf)
    """Where weights that others published lie."""
    keep: Keep | None = None
    """Which samples of generators are kept; None keeps none."""


@dataclass(slots=True)
class Outcome:
    """What a finished run found."""

    values: list[Value]
    details: dict[str, JsonValue] = field(default_factory=dict)
    pictures: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    """PNG bytes and caption by name."""
    warnings: list[str] = field(default_factory=list)


class Session(Protocol):
    """One run under way. Images are processed by index, so that a stopped run goes on where it was."""

    total: int
    """Images to process."""
    measures: dict[str, Measure]
    """What is summed over images, by name."""

    def step(self, start: int, stop: int) -> None:
        """Process the images of these indices. After an error the measures go back to a state from before."""
        ...

    def finish(self, say: Callable[[str], None]) -> Outcome:
        """Compute the values, and do what is not done image by image; `say` names the phase."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of measurement."""

    name: str
    title: str
    measures: tuple[str, ...]
    """Names that a job may list."""
    usual: tuple[str, ...]
    """What a job has that lists none."""
    open: Callable[[RunSpec, Context], Session]
    present: Callable[[RunSpec, Context, Callable[[int, int], object]], None] | None = None
    """What is still to do for a run that has its record already, telling how many images of how many are done; None
    where nothing ever is."""


def finite(output: Tensor, title: str, what: str) -> Tensor:
    """What a method gave, if all of it is a number.

    Raises:
        MethodError: it holds NaN or infinity, of which a measure would make some number or other.
    """
    if not bool(torch.isfinite(output).all()):
        raise MethodError(f"{title} gave {what} that are NaN or infinite: its weights, settings or code are broken")
    return output


def gathered(measures: dict[str, Measure]) -> State:
    """The states of all measures in one flat dictionary."""
    return {f"{name}/{key}": array for name, measure in measures.items() for key, array in measure.state().items()}


def scatter(measures: dict[str, Measure], state: State) -> None:
    """Hand every measure its part of a gathered state."""
    for name, measure in measures.items():
        measure.load(_part(name, state))


def _part(name: str, state: State) -> State:
    prefix = f"{name}/"
    return {key.removeprefix(prefix): array for key, array in state.items() if key.startswith(prefix)}


def joined(measures: dict[str, Measure], states: Sequence[State]) -> State:
    """The gathered states of several processes as one."""
    return {
        f"{name}/{key}": array
        for name, measure in measures.items()
        for key, array in measure.join([_part(name, state) for state in states]).items()
    }


def computed(measures: Iterable[Measure]) -> list[Value]:
    """The values of all measures, in order."""
    return [value for measure in measures for value in measure.compute()]
