"""What a pull request does to the records of its base: it may add some, and delete those that newer ones stand for."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tokenmark.checkout import Checkout, CheckoutError, placed
from tokenmark.errors import RecordError
from tokenmark.publish.checks import Refusal, Stage, refusals
from tokenmark.publish.subject import Known, Subject
from tokenmark.records import Record, parse
from tokenmark.store import Results


@dataclass(frozen=True, slots=True)
class Changes:
    """Files below `records/` that are not as they were, by what became of them."""

    base: str
    """The commit with which the files are compared."""
    added: list[Path]
    changed: list[Path]
    deleted: list[Path]


@dataclass(slots=True)
class Report:
    """What came of checking a results folder."""

    refusals: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    checked: int = 0
    """Records that were read and asked."""
    changes: Changes | None = None


def changes(checkout: Checkout, results: Results, base: str) -> Changes:
    """What differs from where this branch left `base`; files that git does not know yet are added ones.

    Raises:
        CheckoutError: there is no such commit, or no git.
    """
    commit = checkout.commit(base)
    if commit is None:
        raise CheckoutError(
            f"there is no commit '{base}' in {checkout.root}: fetch it (`git fetch origin`), or name one"
        )
    commit = checkout.ask("merge-base", commit, "HEAD") or commit
    folder = checkout.relative(results.records)
    told = checkout.tell("diff", "--name-status", "--no-renames", "-z", commit, "--", folder).split("\0")
    new = checkout.tell("ls-files", "--others", "--exclude-standard", "-z", "--", folder).split("\0")
    found: dict[str, list[Path]] = {"A": [checkout.root / name for name in new if name], "M": [], "D": []}
    for status, name in zip(told[::2], told[1::2], strict=False):
        found.get(status, found["M"]).append(checkout.root / name)
    return Changes(commit, sorted(found["A"]), sorted(found["M"]), sorted(found["D"]))


def check(checkout: Checkout, results: Results, base: str | None, known: Known) -> Report:
    """Check every record of a folder, or those that differ from `base` together with what was done to the others.

    Raises:
        CheckoutError: `base` is no commit here.
        RecordError: a record cannot be read from the disk.
    """
    paths = results.paths()
    found = Report(changes=changes(checkout, results, base) if base is not None else None)
    new = set(found.changes.added) if found.changes else set()
    readable = {path: subject.record for path in paths if not (subject := Subject.at(path)).problem and subject.record}
    known.existing = list(readable.values())
    known.settled = frozenset(record.run for path, record in readable.items() if placed(path) not in new)
    stage: Stage = "kept" if found.changes is None else "incoming"
    asked = [path for path in paths if found.changes is None or placed(path) in new]
    for path in asked:
        known.say(f"{found.checked + 1}/{len(asked)} {path.parent.name}")
        found.refusals += refusals(Subject.at(path), known, stage, str(path))
        found.checked += 1
    if found.changes is not None:
        found.refusals += _of_history(found.changes, checkout, known.existing)
    found.refusals += _stray(results, known.existing, new if found.changes else None)
    found.notes = list(known.notes)
    return found


def _of_history(changed: Changes, checkout: Checkout, existing: list[Record]) -> Iterator[Refusal]:
    for path in changed.changed:
        name = checkout.relative(path)
        yield Refusal(
            name, "changed", f"files of records are never edited: `git checkout {changed.base[:12]} -- {name}`"
        )
    gone = {path.name.partition(".")[0] for path in changed.deleted if path.suffix == ".json"}
    for path in changed.deleted:
        name = checkout.relative(path)
        if path.suffix == ".json" and _stands_for(_before(checkout, changed.base, name), existing):
            continue
        if path.suffix != ".json" and path.name.partition(".")[0] in gone:
            continue  # a picture goes with its record
        yield Refusal(
            name,
            "deleted",
            f"no newer record of the same request is here: add one, or `git checkout {changed.base[:12]} -- {name}`",
        )


def _before(checkout: Checkout, commit: str, name: str) -> Record | None:
    try:
        return parse(checkout.files(commit, name).get(name, b""), name)
    except RecordError:
        return None  # of a schema that is read no more: anything stands for it


def _stands_for(old: Record | None, existing: list[Record]) -> bool:
    return old is None or any(
        (each.spec.request, each.started > old.started) == (old.spec.request, True) for each in existing
    )


def _stray(results: Results, records: list[Record], new: set[Path] | None) -> Iterator[Refusal]:
    """Files that no record names; of a pull request, among those that it adds."""
    named = {results.path(record.spec).parent / each.file for record in records for each in record.pictures.values()}
    known = {placed(path) for path in (*named, *results.paths())}
    for path in sorted(results.records.rglob("*")):
        if path.is_dir() or placed(path) in known or (new is not None and placed(path) not in new):
            continue
        yield Refusal(str(path), "stray", "it belongs to no record that can be read: delete it, or add its record")
