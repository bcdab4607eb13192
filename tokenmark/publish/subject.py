"""What is checked, and what it is held against."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pydantic

from tokenmark.checkout import Checkout
from tokenmark.errors import RecordError
from tokenmark.records import Record, parse


@dataclass(frozen=True)
class Subject:
    """One record's file."""

    path: Path
    data: bytes

    @classmethod
    def at(cls, path: Path) -> "Subject":
        """The file at a path.

        Raises:
            RecordError: it cannot be read.
        """
        try:
            return cls(path, path.read_bytes())
        except OSError as error:
            raise RecordError(f"{path} cannot be read: {error.strerror}") from error

    @functools.cached_property
    def record(self) -> Record | None:
        """What the file says, whether or not somebody changed it; None where it is no record."""
        try:
            return Record.model_validate_json(self.data)
        except pydantic.ValidationError:
            return None

    @functools.cached_property
    def problem(self) -> str | None:
        """Why this is no record as Tokenmark wrote it; None where it is one."""
        try:
            parse(self.data, self.path.stem[:12])
        except RecordError as error:
            return str(error)
        return None


@dataclass
class Known:
    """What records are held against."""

    checkout: Checkout
    """The repository: its suites, locks, vectors and commits."""
    records: Path
    """The folder `records` in which those that are judged lie, or will lie."""
    existing: list[Record] = field(default_factory=list)
    """Records that are beyond doubt here: those of the base, or all that can be read."""
    settled: frozenset[str] = frozenset()
    """Runs of those that are no newcomers."""
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    say: Callable[[str], object] = str
    """Is told of what takes a while."""
    notes: dict[str, None] = field(default_factory=dict)
    """What a reader should know and nobody is refused for, each once."""

    @functools.cached_property
    def _by_experiment(self) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for record in self.existing:
            found.setdefault(record.spec.experiment, []).append(record)
        return found

    def peers(self, record: Record) -> list[Record]:
        """Other existing records of the same experiment, wherever it was run."""
        return [other for other in self._by_experiment.get(record.spec.experiment, []) if other.run != record.run]

    def others(self, record: Record) -> Iterable[Record]:
        """All existing records but this one."""
        return (other for other in self.existing if other.run != record.run)

    def note(self, text: str) -> None:
        """Remember what a reader should know."""
        self.notes[text] = None
