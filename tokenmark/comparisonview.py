"""Two sets of records in a terminal: what differs everywhere, and every value that moved."""

from typing import Any

from rich.console import Console
from rich.markup import escape

from tokenmark.comparison import Comparison, Pair, Side
from tokenmark.records import Record
from tokenmark.recordview import compared, print_comparison, table
from tokenmark.terminal import console

MOST = 12
"""Records that one line lists."""


def show(found: Comparison, to: Console | None = None) -> None:
    """Two records in full, or two sets by what moved."""
    out = to or console()
    if found.first.single is not None and found.second.single is not None:
        print_comparison(found.first.single, found.second.single, out)
        return
    for letter, side in (("A", found.first), ("B", found.second)):
        out.print(f"[bold]{letter}[/] {escape(_named(side))}: {len(side.records)} records", soft_wrap=True)
    out.print(
        f"{len(found.pairs)} of the same request; {_only('A', found.only_first)}, {_only('B', found.only_second)}"
    )
    common = found.common()
    if common:
        facts = table("differs in all", "A", "B")
        for name, (one, other) in common.items():
            facts.add_row(escape(name), escape(str(one)), escape(str(other)))
        out.print(facts)
    _own(found, common, out)
    _values(found, out)


def _named(side: Side) -> str:
    return side.name if side.what == "record" else side.what if side.what != "device" else f"device '{side.name}'"


def _only(letter: str, records: tuple[Record, ...]) -> str:
    if not records:
        return f"none in {letter} alone"
    shown = ", ".join(record.spec.title for record in records[:MOST])
    more = f" and {len(records) - MOST} more" if len(records) > MOST else ""
    return escape(f"{len(records)} in {letter} alone ({shown}{more})")


def _own(found: Comparison, common: dict[str, Any], out: Console) -> None:
    """What differs in some pairs only: how many, by name."""
    counts: dict[str, int] = {}
    for pair in found.pairs:
        for name in pair.differs().keys() - common.keys():
            counts[name] = counts.get(name, 0) + 1
    if counts:
        facts = table("differs in some", "pairs")
        for name in sorted(counts):
            facts.add_row(escape(name), str(counts[name]))
        out.print(facts)


def _values(found: Comparison, out: Console) -> None:
    rows = table("what", "value", "A", "B", "difference", "beyond errors")
    moved = beyond = total = 0
    for pair in found.pairs:
        for title, name, beyond_errors, cells in _moved(pair):
            moved, beyond = moved + 1, beyond + (beyond_errors is True)
            rows.add_row(escape(title), name, *cells)
        total += len(pair.values())
    if moved:
        out.print(rows)
    out.print(f"{total} values: {total - moved} the same bit for bit, {beyond} of the others beyond their errors.")


def _moved(pair: Pair) -> list[tuple[str, str, bool | None, tuple[str, str, str, str]]]:
    """The values of a pair that are not the same; the title stands before the first."""
    rows = [row for row in pair.values() if row["a"] != row["b"]]
    cells = [compared(pair.first.value(row["name"]), pair.second.value(row["name"])) for row in rows]
    titles = [pair.first.spec.title, *[""] * len(rows)]
    return [
        (title, row["name"], row["beyond_errors"], each) for title, row, each in zip(titles, rows, cells, strict=False)
    ]
