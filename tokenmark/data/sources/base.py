"""What every kind of source gives: its files with their labels, and a way to read them in any process."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from tokenmark.data.imagenet import SUFFIXES, Collection, class_of

TOGETHER = 32
"""Files that one worker reads in one go."""

Place = tuple[Any, ...]
Labels = dict[str, int]
"""Class index by published name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a source."""

    name: str
    """Its published name; where there is none, the name under which it lies."""
    label: int | None
    """Class index, where the source tells."""
    place: Place
    """Where it lies, as the source's `read` takes it."""
    known: bool = True
    """Whether a published file has this name."""


@dataclass(frozen=True, slots=True)
class Source:
    """A source that was opened. It can be sent to another process, but for its parts only `read` should be."""

    kind: str
    parts: tuple[tuple[Entry, ...], ...]
    """All files, in the order in which they are read fastest, cut where another process may go on."""
    read: Callable[[Place], bytes]
    """The bytes of the file at a place. Raises OSError."""
    named: bool = True
    """Whether files have names of their own, so that they can be checked and ordered by them."""

    @property
    def entries(self) -> Iterator[Entry]:
        """All files."""
        return (entry for part in self.parts for entry in part)


def evenly(entries: Iterable[Entry]) -> tuple[tuple[Entry, ...], ...]:
    """Parts for a source of which any file is read as fast as any other."""
    found = tuple(entries)
    return tuple(found[start : start + TOGETHER] for start in range(0, len(found), TOGETHER))


def entry(collection: Collection, path: str, place: Place, label: int | None = None) -> Entry | None:
    """The entry of a file that is called `path`; None if that is no picture's name (hidden, or a text beside them)."""
    file_name = PurePosixPath(path).name
    if file_name.startswith(".") or PurePosixPath(file_name).suffix.lower() not in SUFFIXES:
        return None
    canonical = collection.canonical(file_name)
    if canonical is None:
        return Entry(path, label, place, known=False)
    name, wnid = canonical
    return Entry(name, label if label is not None or wnid is None else class_of().get(wnid), place)
