"""A record's run once more, in the environment that it was made in, and whether it came out equal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.markup import escape

from tokenmark import agreement, build, pinned, plan, provenance, registry, runner, suites
from tokenmark.checkout import Checkout
from tokenmark.display import Display
from tokenmark.errors import TokenmarkError
from tokenmark.plan import Planned
from tokenmark.records import Record, Value
from tokenmark.recordview import table
from tokenmark.shelf import Shelf
from tokenmark.store import Results
from tokenmark.tasks.base import Context
from tokenmark.terminal import console

Verdict = Literal["equal", "within errors", "differs", "not compared"]
VERDICTS: tuple[Verdict, ...] = ("equal", "within errors", "differs", "not compared")


class ReproduceError(TokenmarkError):
    """A record whose run cannot be done again here, with what is missing."""


class DepartedError(ReproduceError):
    """Today's suites plan another experiment than the record's."""


@dataclass(frozen=True, slots=True)
class Again:
    """One value of a record beside the same value measured again."""

    name: str
    recorded: float | None
    measured: float | None
    verdict: Verdict
    why: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A record and its run again."""

    record: Record
    again: Record
    values: tuple[Again, ...]

    @property
    def held(self) -> bool:
        """Whether no value differs."""
        return all(each.verdict != "differs" for each in self.values)

    def line(self) -> str:
        """The verdict in one line."""
        counts = {kind: [each.name for each in self.values if each.verdict == kind] for kind in VERDICTS}
        told = ", ".join(f"{len(names)} {kind}" for kind, names in counts.items() if names)
        if counts["differs"]:
            return f"differs in {', '.join(counts['differs'])} ({told})"
        if len(counts["equal"]) == len(self.values):
            return f"equal: all {len(self.values)} values, bit for bit"
        return f"{'within errors' if counts['within errors'] else 'equal'} ({told})"


def compared(record: Record, again: Record) -> Outcome:
    """Every value of a record beside the same run's again."""
    names = dict.fromkeys(value.name for value in (*record.values, *again.values))
    same = record.spec.device == again.spec.device
    values = (_again(name, record.value(name), again.value(name), same_device=same) for name in names)
    return Outcome(record, again, tuple(values))


def _again(name: str, one: Value | None, other: Value | None, *, same_device: bool) -> Again:
    if one is None or other is None:
        recorded, measured = (None if value is None else value.value for value in (one, other))
        return Again(name, recorded, measured, "differs", "only one of the two has it")
    if agreement.kind_of(name) == "timing":
        verdict, why = _of_timing(one, other, same_device=same_device)
    else:
        verdict, why = _of_value(one, other)
    return Again(name, one.value, other.value, verdict, why)


def _of_value(one: Value, other: Value) -> tuple[Verdict, str]:
    """Bit for bit, or within the errors of both; of one experiment nothing else is the same result."""
    if one == other:
        return "equal", ""
    if agreement.kind_of(one.name) == "follows":
        return "within errors", "follows from others"
    problem = agreement.contradiction(one, other, same_device=False)
    return ("within errors", "") if problem is None else ("differs", problem)


def _of_timing(one: Value, other: Value, *, same_device: bool) -> tuple[Verdict, str]:
    """By intervals, on the same device; a time without an interval is told and not judged."""
    most = agreement.allowed(one, other)
    if not same_device or most is None:
        return "not compared", "another device" if not same_device else "a time without an interval"
    if abs(one.value - other.value) <= most:
        return "within errors", ""
    return "differs", f"{one.value:.6g} and {other.value:.6g}, beyond the intervals of both"


def show(outcome: Outcome, to: Console | None = None) -> None:
    """Every value beside its repetition."""
    rows = table("value", "recorded", "again", "verdict", "why")
    for each in outcome.values:
        numbers = ("" if number is None else f"{number:.6g}" for number in (each.recorded, each.measured))
        rows.add_row(each.name, *numbers, each.verdict, escape(each.why))
    (to or console()).print(rows)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run is done again."""

    folder: Path
    """Results folder of the new record alone."""
    work: Path
    """Folder for a working tree and an environment, if they are needed."""
    device: torch.device
    data: Path
    shelf: Shelf
    suites: Path


def empty(folder: Path) -> Path:
    """A folder that has nothing in it.

    Raises:
        ReproduceError: it has: what is there would be taken for the new record.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ReproduceError(f"{folder} is not empty: choose another folder for --keep")
    return folder.resolve()


def again(record: Record, place: Place, checkout: Checkout, say: Callable[[str], object]) -> Record:
    """Measure the record's run once more: in this process where it is the record's environment, else in that one.

    Raises:
        TokenmarkError: something that it needs is missing; the line says what.
    """
    why = another_environment(record)
    if why is None:
        context = context_of(record, place)
        try:
            item = planned(record, context, place.suites)
        except DepartedError as error:
            why = str(error)
        else:
            return here(record, item, context, place.folder)
    say(f"{record.spec.title}: {why}; so its own environment is made")
    try:
        with pinned.made(record, checkout, place.work, say) as environment:
            data, weights = place.data.resolve(), place.shelf.folder.resolve()
            return environment.run(record, place.folder, data, weights, str(place.device))
    except pinned.PinnedError as error:
        raise ReproduceError(
            f"{record.spec.title} cannot be run here ({why}) nor in its own environment: {error}"
        ) from error


def another_environment(record: Record) -> str | None:
    """What keeps this process from being the environment of a record; None where nothing does."""
    environment, today = record.environment, provenance.environment(torch.device("cpu"))
    if environment.lock_sha256 != today.lock_sha256:
        return f"it was pinned by {environment.lock or 'no lock'}, and this environment is by {today.lock or 'none'}"
    if environment.lock_sha256 is None and environment.libraries != today.libraries:
        return "its libraries have other versions"
    if record.spec.method not in registry.locations():
        return f"there is no method {record.spec.method} here"
    if build.implementation_of(record.spec) != record.spec.implementation:
        return f"the source of {record.spec.method} is another today"
    return None


def planned(record: Record, context: Context, suites_folder: Path) -> Planned:
    """The run of the record's experiment, as today's suite plans it.

    Raises:
        DepartedError: the suite plans it no more, or of other weights, data or protocol.
        TokenmarkError: its data or weights are missing, or the suite cannot be read.
    """
    spec = record.spec
    suite = suites.load(suites.find(spec.suite, suites_folder))
    runs = plan.plan(suite, spec.suite, context, spec.site, only=(spec.method,), limit=spec.samples or None)
    same = [each for each in runs if each.spec is not None and each.spec.experiment == spec.experiment]
    if same:
        return same[0]
    problem = next((each.problem for each in runs if each.problem is not None), None)
    if problem is not None:
        raise problem
    raise DepartedError(_departed(record, runs))


def _departed(record: Record, runs: Sequence[Planned]) -> str:
    """Why none of today's runs is the record's."""
    alike = [each.spec for each in runs if each.spec is not None and each.spec.title == record.spec.title]
    if not alike:
        return f"suite {record.spec.suite} plans no run {record.spec.title} today"
    one, other = record.spec.model_dump(mode="json"), alike[0].model_dump(mode="json")
    names = [name for name in one if one[name] != other[name] and name not in {"device", "site"}]
    return f"today's {record.spec.title} differs from the record's in {', '.join(names)}"


def here(record: Record, item: Planned, context: Context, folder: Path) -> Record:
    """Run a planned run in this process, into a folder of results of its own.

    Raises:
        ReproduceError: it did not end well.
    """
    display = Display()
    results = Results(folder)
    with results.locked(), display.suite(f"Again: {record.spec.title}", 1):
        summary = runner.run_all([item], results, context, display)
    if not summary.records:
        problems = [error for _, error in (*summary.missing, *summary.failures)]
        raise ReproduceError(f"{record.spec.title} failed: {problems[0]}")
    return summary.records[0]


def context_of(record: Record, place: Place) -> Context:
    """Where it is run again: on a processor with as many threads as the record's."""
    if place.device.type == "cpu" and record.environment.device == "cpu":
        torch.set_num_threads(record.environment.threads)
    return Context(place.device, place.data, place.shelf)
