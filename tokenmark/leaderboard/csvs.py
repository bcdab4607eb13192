"""CSV beside what is shown: the records' own numbers, not rounded, in their own units."""

import csv
import io
from collections.abc import Iterable, Sequence

from tokenmark.cells import Column, name_cell
from tokenmark.records import Value
from tokenmark.tracks import Group, Track

Number = float | int | str | None


def written(header: Sequence[str], rows: Iterable[Sequence[Number]]) -> bytes:
    """A CSV file. Text that a spreadsheet would take for a formula gets an apostrophe: names are others'."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([_safe(cell) for cell in row])
    return out.getvalue().encode()


def _safe(cell: Number) -> Number:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def of_group(track: Track, group: Group) -> bytes:
    """The table of a group: every value under the name that records give it, with its error, and the run."""
    columns = [(column, _source(column, group)) for column in track.filled(group)[1:]]
    header = ["method", "run"]
    for column, source in columns:
        header += [f"{source}{part}" for part in ("", "_se", "_low", "_high", "_n")] if source else [column.title]
    rows = []
    for record in group.records:
        row: list[Number] = [name_cell(record).text, record.run]
        for column, source in columns:
            row += _with_error(record.value(source)) if source else [column.cell(record).number]
        rows.append(row)
    return written(header, rows)


def _source(column: Column, group: Group) -> str:
    """The record's value that a column shows; nothing where it shows something else."""
    return next((source for record in group.records if (source := column.cell(record).source)), "")


def _with_error(value: Value | None) -> list[Number]:
    if value is None:
        return [None] * 5
    low, high = value.interval or (None, None)
    return [value.value, value.se, low, high, value.n]
