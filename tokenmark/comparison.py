"""Two sets of records side by side: one run each, all of a commit, or all of a device, joined by what was asked for."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenmark.checkout import Checkout
from tokenmark.errors import RecordError, TokenmarkError
from tokenmark.records import Record, parse
from tokenmark.recordview import SHORTEST, beyond_errors, find, flat
from tokenmark.store import Results
from tokenmark.tracks import current


@dataclass(frozen=True, slots=True)
class Side:
    """Records under one name."""

    name: str
    what: str
    """Which records these are, in words."""
    records: tuple[Record, ...]

    @property
    def single(self) -> Record | None:
        """The one record that was named, if one was."""
        return self.records[0] if self.what == "record" else None


@dataclass(frozen=True, slots=True)
class Pair:
    """One request measured on both sides."""

    first: Record
    second: Record

    def differs(self) -> dict[str, tuple[Any, Any]]:
        """What differs in specification and environment, by name."""
        one, other = flat(self.first), flat(self.second)
        names = dict.fromkeys([*one, *other])
        return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}

    def values(self) -> list[dict[str, Any]]:
        """Every value that one of them has: both numbers, their difference, and whether it is beyond their errors."""
        rows = []
        for name in dict.fromkeys(value.name for value in (*self.first.values, *self.second.values)):
            one, other = self.first.value(name), self.second.value(name)
            both = one is not None and other is not None
            rows.append(
                {
                    "name": name,
                    "a": one.value if one else None,
                    "b": other.value if other else None,
                    "difference": other.value - one.value if one and other else None,
                    "beyond_errors": beyond_errors(one, other) if both and one and other else None,
                }
            )
        return rows


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sides, joined."""

    first: Side
    second: Side
    pairs: tuple[Pair, ...]
    only_first: tuple[Record, ...]
    only_second: tuple[Record, ...]

    def common(self) -> dict[str, tuple[Any, Any]]:
        """What differs in the same way in all pairs."""
        told = [pair.differs() for pair in self.pairs]
        return (
            {name: each for name, each in told[0].items() if all(one.get(name) == each for one in told)} if told else {}
        )

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        common = self.common()
        return {
            "a": {"name": self.first.name, "what": self.first.what, "records": len(self.first.records)},
            "b": {"name": self.second.name, "what": self.second.what, "records": len(self.second.records)},
            "differs_in_all": {name: list(values) for name, values in common.items()},
            "pairs": [_plain(pair, common) for pair in self.pairs],
            "only_a": [record.run for record in self.only_first],
            "only_b": [record.run for record in self.only_second],
        }


def _plain(pair: Pair, common: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    return {
        "title": pair.first.spec.title,
        "a": pair.first.run,
        "b": pair.second.run,
        "same_experiment": pair.first.spec.experiment == pair.second.spec.experiment,
        "differs": {name: list(values) for name, values in pair.differs().items() if name not in common},
        "values": pair.values(),
    }


def side(name: str, results: Results) -> Side:
    """The records that a name means: a file, the beginning of a run's name, a commit, or part of a device's name.

    Raises:
        TokenmarkError: it means nothing here, or several things.
        RecordError: a record cannot be read, or was altered.
    """
    if name.endswith(".json"):
        return Side(name, "record", (results.read(Path(name)),))
    checkout = Checkout.around(results.root)
    ways: dict[str, Callable[[], Side]] = {}
    if len(name) >= SHORTEST and any(path.stem.startswith(name) for path in results.paths()):
        ways["the run of a record"] = lambda: Side(name, "record", (find(results, name),))
    commit = checkout.commit(name)
    if commit is not None:
        ways["a commit"] = lambda: Side(name, f"commit {commit[:12]}", tuple(current(at(checkout, commit, results))))
    devices = [] if ways or not name else _on(name, results)
    if devices:
        ways["a device"] = lambda: Side(name, "device", tuple(current(devices)))
    if len(ways) > 1:
        raise TokenmarkError(f"'{name}' is the beginning of {' and of '.join(ways)}: give more of its digits")
    if not ways:
        seen = sorted({record.spec.device for record in results.all()})
        raise TokenmarkError(
            f"no record in {results.records} begins with '{name}' (give at least {SHORTEST} digits of its run's name),"
            f" no commit here and no device is called so; devices: {', '.join(seen) or 'none'}"
        )
    return next(iter(ways.values()))()


def _on(name: str, results: Results) -> list[Record]:
    return [record for record in results.all() if name.lower() in record.spec.device.lower()]


def at(checkout: Checkout, commit: str, results: Results) -> list[Record]:
    """The records of a results folder as they were at a commit.

    Raises:
        TokenmarkError: there were none.
        RecordError: they are of a schema that this Tokenmark does not read.
    """
    folder = checkout.relative(results.records)
    files = {name: data for name, data in checkout.files(commit, folder).items() if name.endswith(".json")}
    if not files:
        raise TokenmarkError(f"there are no records below {folder} at commit {commit[:12]}: name another commit")
    try:
        return [parse(data, name) for name, data in sorted(files.items())]
    except RecordError as error:
        raise RecordError(
            f"at commit {commit[:12]}: {str(error).partition(': restore')[0]}; name a later one"
        ) from error


def compare(first: Side, second: Side) -> Comparison:
    """Join two sides; of several records of one request on a side the newest counts. Two records are always a pair."""
    if first.single is not None and second.single is not None:
        return Comparison(first, second, (Pair(first.single, second.single),), (), ())
    one, other = _by_request(first.records), _by_request(second.records)
    return Comparison(
        first,
        second,
        tuple(Pair(one[key], other[key]) for key in one if key in other),
        tuple(record for key, record in one.items() if key not in other),
        tuple(record for key, record in other.items() if key not in one),
    )


def _by_request(records: Iterable[Record]) -> dict[str, Record]:
    newest = sorted(records, key=lambda record: (record.started, record.run))
    found = {record.spec.question: record for record in newest}
    return dict(sorted(found.items(), key=lambda item: (item[1].spec.suite, item[1].spec.task, item[1].spec.title)))
