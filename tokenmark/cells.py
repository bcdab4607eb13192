"""Cells of tables: how a record's values are written, and the numbers behind what is read."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from tokenmark.records import Record, Value


@dataclass(frozen=True, slots=True)
class Cell:
    """What a reader sees, and the number behind it."""

    text: str
    number: float | None = None
    source: str = ""
    """Name of the record's value that it shows; nothing where it shows something else."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a track."""

    title: str
    help: str
    cell: Callable[[Record], Cell]
    numeric: bool = True
    spare: bool = False
    """Whether a terminal may leave it out where there is no room."""


def name_cell(record: Record) -> Cell:
    """The method with what sets the run apart; a classifier's name stands in the group's heading."""
    spec = record.spec
    title = spec.title
    return Cell(title.replace(f"/{spec.model}", "", 1) if spec.model else title)


def distance(name: str) -> Callable[[Record], Cell]:
    """A Fréchet distance in three significant digits, with its standard error in two."""

    def cell(record: Record) -> Cell:
        value = record.value(name)
        if value is None:
            return Cell("")
        error = f" ± {significant(value.se, 2)}" if value.se is not None else ""
        return Cell(significant(value.value, 3) + error, value.value, name)

    return cell


def significant(number: float, digits: int) -> str:
    """A number in so many significant digits, never in powers of ten."""
    if number == 0:
        return "0"
    places = max(digits - 1 - math.floor(math.log10(abs(number))), 0)
    return f"{number:,.{places}f}"


def bare(name: str, digits: int, scale: float = 1.0) -> Callable[[Record], Cell]:
    """A value alone."""

    def cell(record: Record) -> Cell:
        value = record.value(name)
        return Cell("") if value is None else Cell(f"{value.value * scale:,.{digits}f}", value.value, name)

    return cell


def ranged(name: str, digits: int, scale: float = 1.0, unit: str = "") -> Callable[[Record], Cell]:
    """A value with its 95 % interval."""

    def cell(record: Record) -> Cell:
        value = record.value(name)
        return Cell("") if value is None else Cell(_with_interval(value, digits, scale, unit), value.value, name)

    return cell


def _with_interval(value: Value, digits: int, scale: float, unit: str) -> str:
    text = f"{value.value * scale:,.{digits}f}{unit}"
    if value.interval is None:
        return text
    low, high = (bound * scale for bound in value.interval)
    return f"{text} [{low:,.{digits}f}, {high:,.{digits}f}]"


def p_value(name: str) -> Callable[[Record], Cell]:
    """A probability in three digits; what would be 0.000 is told apart from nought."""

    def cell(record: Record) -> Cell:
        value = record.value(name)
        if value is None:
            return Cell("")
        return Cell("<0.001" if value.value < 0.0005 else f"{value.value:.3f}", value.value, name)

    return cell


def signed(name: str, digits: int, scale: float = 1.0) -> Callable[[Record], Cell]:
    """A difference with its sign and 95 % interval."""

    def cell(record: Record) -> Cell:
        value = record.value(name)
        if value is None or value.interval is None:
            return Cell("")
        low, high = (bound * scale for bound in value.interval)
        text = f"{value.value * scale:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
        return Cell(text, value.value, name)

    return cell


def parameters_cell(record: Record) -> Cell:
    """Parameters in millions."""
    count = record.details.get("parameters")
    return Cell(f"{count / 1e6:.2f} M", float(count)) if isinstance(count, int) and count else Cell("none", 0.0)


def sampling_cell(record: Record) -> Cell:
    """Samples per second of the whole run, measures included."""
    rate = record.spec.samples / max(record.durations["images"], 1e-9)
    return Cell(f"{rate:,.0f}", rate)
