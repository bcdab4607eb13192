"""What the site is made of: the records and the verdicts on claims, each found by what pages ask for."""

import functools
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from tokenmark.claims.judged import Judged
from tokenmark.errors import RecordError
from tokenmark.records import Record
from tokenmark.store import Results
from tokenmark.tracks import TRACKS, Group, Track, current, groups


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
        found: defaultdict[tuple[Track, str], list[Group]] = defaultdict(list)
        for track in TRACKS:
            for group in groups(track, self.records):
                found[track, group.records[0].spec.protocol].append(group)
        return dict(found)

    @functools.cached_property
    def methods(self) -> list[str]:
        """Ids of all methods that were measured or that claims are about."""
        named = {each.claim.subject.method for each in self.judged} - {None}
        return sorted({record.spec.method for record in self.records} | {str(name) for name in named})

    @functools.cached_property
    def by_method(self) -> dict[str, list[Record]]:
        """Records by method."""
        found: defaultdict[str, list[Record]] = defaultdict(list)
        for record in self.records:
            found[record.spec.method].append(record)
        return dict(found)

    @functools.cached_property
    def claims_by_method(self) -> dict[str, list[Judged]]:
        """Judged claims by the method that they are about."""
        found: defaultdict[str, list[Judged]] = defaultdict(list)
        for each in self.judged:
            if each.claim.subject.method is not None:
                found[each.claim.subject.method].append(each)
        return dict(found)

    @functools.cached_property
    def claims_by_record(self) -> dict[str, list[Judged]]:
        """Judged claims by the runs that they were judged by."""
        found: defaultdict[str, list[Judged]] = defaultdict(list)
        for each in self.judged:
            for run in dict.fromkeys(record.run for record in each.records):
                found[run].append(each)
        return dict(found)

    @functools.cached_property
    def papers(self) -> dict[str, list[Judged]]:
        """Judged claims by the file of their paper."""
        found: defaultdict[str, list[Judged]] = defaultdict(list)
        for each in self.judged:
            found[each.filed.file].append(each)
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
