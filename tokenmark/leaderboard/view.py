"""What a page shows, before it is HTML: tables of linked cells, and badges. Links are relative to the site's root."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class File(NamedTuple):
    """One file of the site."""

    path: str
    """Relative to the site's root."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Badge:
    """A mark that is told by its words and its sign; its colour only helps."""

    text: str
    kind: str
    """Names its colour."""
    sign: str = ""
    help: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One cell of a table."""

    text: str
    number: float | None = None
    """What it is sorted by; without one, by its text."""
    href: str = ""
    badges: tuple[Badge, ...] = ()
    words: bool = False
    """Whether it may break into lines."""


@dataclass(frozen=True, slots=True)
class Heading:
    """The head of a column."""

    title: str
    help: str = ""
    numeric: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """A row; its first entry is its head."""

    entries: tuple[Entry, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    """What select boxes choose by, and what sets the row apart: becomes `data-` attributes."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A table in a region that scrolls by itself."""

    label: str
    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]
    csv: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """A select box above tables: rows are shown whose fact `name` is the one chosen."""

    name: str
    label: str
    options: tuple[str, ...]


def choices(names: Mapping[str, str], rows: Sequence[Row]) -> tuple[Choice, ...]:
    """Select boxes, by fact and label, for the facts that set rows apart."""
    found = (Choice(name, label, tuple(sorted({row.facts[name] for row in rows}))) for name, label in names.items())
    return tuple(choice for choice in found if len(choice.options) > 1)


@dataclass(frozen=True, slots=True)
class Fact:
    """A line of a list of facts."""

    name: str
    text: str
    href: str = ""
    """A place on the site, or an `http(s)` address elsewhere."""
    code: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot: what it shows in words, its data for the script that draws it, and the same as a file."""

    title: str
    about: str
    data: Mapping[str, object]
    csv: str
    table: str
    """Anchor of the table beneath, which says the same."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page: a table with its plots, or facts, under a heading."""

    id: str
    title: str
    grid: Grid | None = None
    note: str = ""
    figures: tuple[Figure, ...] = ()
    facts: tuple[Fact, ...] = ()
