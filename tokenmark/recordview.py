"""One record in full, and two side by side."""

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tokenmark import agreement
from tokenmark.errors import TokenmarkError
from tokenmark.records import Record, Value
from tokenmark.store import Results
from tokenmark.terminal import console

SHORTEST = 4


def find(results: Results, prefix: str) -> Record:
    """The record whose run's name begins with `prefix`.

    Raises:
        TokenmarkError: none does, or several do.
        RecordError: it was altered.
    """
    return results.read(path_of(results, prefix))


def path_of(results: Results, prefix: str) -> Path:
    """The file of the record whose run's name begins with `prefix`, unread.

    Raises:
        TokenmarkError: none does, or several do.
    """
    paths = [path for path in results.paths() if path.stem.startswith(prefix)]
    if len(prefix) < SHORTEST or len(paths) != 1:
        found = f"{len(paths)} records" if paths else "no record"
        raise TokenmarkError(
            f"{found} in {results.records} begin with '{prefix}': give at least {SHORTEST} digits of one run's name"
            " (`tokenmark show` lists records, their files are named by run)"
        )
    return paths[0]


def print_record(record: Record, to: Console | None = None) -> None:
    """Values, specification, environment and warnings of a record."""
    out = to or console()
    out.print(f"[bold]{escape(record.spec.title)}[/]  suite {record.spec.suite}, protocol {record.spec.protocol}")
    out.print(f"run {record.run}", soft_wrap=True)
    values = table("value", "measured", "error", "n")
    for value in record.values:
        values.add_row(value.name, f"{value.value:.6g}", _error(value), str(value.n))
    out.print(values)
    facts = table("what", "is")
    for name, fact in flat(record).items():
        facts.add_row(escape(name), escape(str(fact)))
    out.print(facts)
    for warning in record.warnings:
        out.print(f"[yellow]warning[/] {escape(warning)}")


def print_comparison(first: Record, second: Record, to: Console | None = None) -> None:
    """What differs between two records."""
    out = to or console()
    same = first.spec.experiment == second.spec.experiment
    out.print(f"[bold]{escape(first.spec.title)}[/] and [bold]{escape(second.spec.title)}[/]:", end=" ")
    out.print("the same experiment" if same else "different experiments")
    one, other = flat(first), flat(second)
    facts = table("differs in", first.run[:8], second.run[:8])
    for name in dict.fromkeys([*one, *other]):
        if one.get(name) != other.get(name):
            facts.add_row(escape(name), escape(str(one.get(name, ""))), escape(str(other.get(name, ""))))
    out.print(facts if facts.row_count else "Nothing differs in specification and environment.")
    values = table("value", first.run[:8], second.run[:8], "difference", "beyond errors")
    for name in dict.fromkeys(value.name for value in (*first.values, *second.values)):
        values.add_row(name, *compared(first.value(name), second.value(name)))
    out.print(values)


def beyond_errors(one: Value, other: Value) -> bool | None:
    """Whether two values differ by more than their 95 % errors together; None where no error is known."""
    most = agreement.allowed(one, other)
    if most is None:
        return None if one.value != other.value else False
    return abs(one.value - other.value) > most


def compared(one: Value | None, other: Value | None) -> tuple[str, str, str, str]:
    """Cells of two values side by side: both, their difference, and whether it is beyond their errors."""
    if one is None or other is None:
        return (f"{one.value:.6g}" if one else "", f"{other.value:.6g}" if other else "", "", "")
    beyond = {True: "yes", False: "no", None: "no error known"}[beyond_errors(one, other)]
    return f"{one.value:.6g}", f"{other.value:.6g}", f"{other.value - one.value:+.3g}", beyond


def _error(value: Value) -> str:
    if value.interval is not None:
        return f"[{value.interval[0]:.6g}, {value.interval[1]:.6g}]".replace("[", "\\[")
    return f"± {value.se:.3g}" if value.se is not None else ""


def table(*titles: str) -> Table:
    """An empty table with these columns."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def flat(record: Record) -> dict[str, Any]:
    """Specification and environment in one level."""
    flat: dict[str, Any] = {}
    parts = {"": record.spec.model_dump(mode="json"), "environment ": record.environment.model_dump(mode="json")}
    for prefix, values in parts.items():
        for name, value in values.items():
            if isinstance(value, dict):
                flat |= {f"{prefix}{name} {key}": item for key, item in value.items()}
            else:
                flat[f"{prefix}{name}"] = value
    return flat
