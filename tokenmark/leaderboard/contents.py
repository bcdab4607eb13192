"""What the site is made of: the records and the verdicts on claims, each found by what pages ask for."""

import functools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tokenmark.claims.judged import Judged
from tokenmark.errors import RecordError
from tokenmark.records import Record
from tokenmark.store import Results
from tokenmark.tracks import TRACKS, Group, Track, current, groups

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True)
class Contents:
    """All records of a results folder, and what was found of all claims."""

    records: tuple[Record, ...]
    folders: dict[str, Path]
    """Where each run's file and pictures lie."""
    judged: tuple[Judged, ...] = ()

    @functools.cached_property
    def standing(self) -> frozenset[str]:
        """Runs that no newer record of the same request supersedes."""
        return frozenset(record.run for record in current(self.records))

    @functools.cached_property
    def tracks(self) -> dict[tuple[Track, str], list[Group]]:
        """Groups by track and protocol, in the order of tracks."""
        return _grouped(
            ((track, group.records[0].spec.protocol), group)
            for track in TRACKS
            for group in groups(track, self.records)
        )

    @functools.cached_property
    def methods(self) -> list[str]:
        """Ids of all methods that were measured or that claims are about."""
        named = {each.claim.subject.method for each in self.judged} - {None}
        return sorted({record.spec.method for record in self.records} | {str(name) for name in named})

    @functools.cached_property
    def by_method(self) -> dict[str, list[Record]]:
        """Records by method."""
        return _grouped((record.spec.method, record) for record in self.records)

    @functools.cached_property
    def claims_by_method(self) -> dict[str, list[Judged]]:
        """Judged claims by the method that they are about."""
        return _grouped((each.claim.subject.method, each) for each in self.judged if each.claim.subject.method)

    @functools.cached_property
    def claims_by_record(self) -> dict[str, list[Judged]]:
        """Judged claims by the runs that they were judged by."""
        return _grouped((run, each) for each in self.judged for run in {record.run for record in each.records})

    @functools.cached_property
    def papers(self) -> dict[str, list[Judged]]:
        """Judged claims by the file of their paper."""
        return _grouped((each.filed.file, each) for each in self.judged)


def _grouped(pairs: Iterable[tuple[K, T]]) -> dict[K, list[T]]:
    """What goes by each key, in order."""
    found: defaultdict[K, list[T]] = defaultdict(list)
    for key, each in pairs:
        found[key].append(each)
    return dict(found)


def stored(results: Results) -> tuple[tuple[Record, ...], dict[str, Path]]:
    """All records of a folder, each once, in the order of their paths, and the folders that they lie in.

    Raises:
        RecordError: one of them cannot be read or was altered: a page must not show it.
    """
    records: dict[str, Record] = {}
    folders: dict[str, Path] = {}
    for path in results.paths():
        record = results.read(path)
        if record.run in records and records[record.run] != record:
            raise RecordError(f"two records of run {record.run[:12]} differ, one is {path}: delete one of them")
        records[record.run] = record
        folders[record.run] = path.parent
    return tuple(records.values()), folders
