"""Whether a source is what was published: names, labels and counts, before anything is decoded."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tokenmark.data.imagenet import CLASSES, Collection, wnids
from tokenmark.data.labels import Labels
from tokenmark.data.sources import Entry, Source

SHOWN = 3
"""Names of each kind that a message shows."""


@dataclass(slots=True)
class Findings:
    """What is wrong, by kind. A message names the first few, a report every one."""

    by_kind: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, what: Iterable[str]) -> None:
        """Note what was found of a kind, if anything was."""
        found = [name if name.isprintable() else ascii(name) for name in what]
        if found:
            self.by_kind[kind] = found

    def summary(self) -> str:
        """All kinds with their counts and first names, in one line."""
        return ", ".join(
            f"{len(found):,} {kind} ({', '.join(found[:SHOWN])}{', ...' if len(found) > SHOWN else ''})"
            for kind, found in self.by_kind.items()
        )

    def report(self) -> str:
        """Every finding on a line of its own."""
        return "".join(f"{kind}\t{name}\n" for kind, found in self.by_kind.items() for name in found)


@dataclass(frozen=True, slots=True)
class Item:
    """A picture that will be prepared, and its place in the array."""

    index: int
    entry: Entry
    label: int


@dataclass(frozen=True, slots=True)
class Checked:
    """What a source holds of a collection."""

    entries: tuple[tuple[Entry, int], ...]
    """Files that can be used, with their class index, in the order of the array: by published name."""
    missing: tuple[str, ...]
    ambiguous: Findings
    """What no flag can excuse: a picture whose name or label is not certain."""
    incomplete: Findings
    """What makes it less than the whole, or more."""


def check(source: Source, collection: Collection, labels: Labels | None) -> Checked:
    """Compare a source with what was published."""
    ambiguous, incomplete = Findings(), Findings()
    usable = [entry for entry in source.entries if entry.known or not source.named]
    times = Counter(entry.name for entry in usable)
    ambiguous.add("named twice", (name for name, count in times.items() if count > 1))
    given = {entry.name: (labels or {}).get(entry.name, entry.label) for entry in usable}
    ambiguous.add("without a label", (name for name, label in given.items() if label is None))
    ambiguous.add(
        "labelled otherwise by --labels",
        (entry.name for entry in usable if entry.label not in (None, given[entry.name])),
    )
    missing = tuple(name for name in collection.published() if name not in times) if source.named else ()
    incomplete.add("missing", missing)
    incomplete.add("extra", (entry.name for entry in source.entries if source.named and not entry.known))
    found = [(entry, label) for entry in usable if (label := given[entry.name]) is not None]
    if source.named:
        found.sort(key=lambda pair: pair[0].name)
    incomplete.add("classes of a wrong size", _wrong_sizes(collection, [label for _, label in found]))
    if len(found) != collection.images:
        incomplete.add("wrong count", [f"{len(found):,} images instead of {collection.images:,}"])
    return Checked(tuple(found), missing, ambiguous, incomplete)


def _wrong_sizes(collection: Collection, labels: Iterable[int]) -> Iterable[str]:
    fewest, most = collection.per_class
    counts = Counter(labels)
    wanted = f"{fewest}" if fewest == most else f"{fewest} to {most:,}"
    for index, wnid in enumerate(wnids()[:CLASSES]):
        if not fewest <= counts[index] <= most:
            yield f"{wnid}: {counts[index]} instead of {wanted}"


def balanced(entries: Sequence[tuple[Entry, int]], limit: int | None) -> list[Item]:
    """The first `limit` pictures if classes take turns, in their old order; all without a limit.

    Numbers of pictures of two classes differ by one at most, unless a class has no more.
    """
    chosen = range(len(entries))
    if limit is not None:
        turns: defaultdict[int, int] = defaultdict(int)
        keys = []
        for place, (_, label) in enumerate(entries):
            keys.append((turns[label], label, place))
            turns[label] += 1
        chosen = sorted(place for _, _, place in sorted(keys)[:limit])  # type: ignore[assignment]
    return [Item(index, *entries[place]) for index, place in enumerate(chosen)]
