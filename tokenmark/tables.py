"""Tables for the terminal, at most 100 columns wide."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from tokenmark.cells import Column
from tokenmark.records import Record
from tokenmark.terminal import WIDTH, console
from tokenmark.tracks import TRACKS, Group, Track, groups

NAME = 26
"""Columns that a name takes where there is room for no more: it goes on in the next line."""


def print_tracks(records: Sequence[Record], to: Console | None = None, most: int | None = None) -> None:
    """One table per track and group, each ranked, of at most so many rows."""
    out = to or console()
    for track in TRACKS:
        for group in groups(track, records):
            shown = Group(group.heading, group.records[:most])
            out.print(f"[bold]{track.title}[/] — {escape(group.heading)}")
            table, left_out = track_table(track, shown)
            out.print(table)
            if left_out:
                out.print(f"[dim]no room here for {escape(', '.join(left_out))}: tokenmark show RUN, or the page[/]\n")
            if left := len(group.records) - len(shown.records):
                out.print(f"[dim]{left} more: tokenmark show[/]\n")
        if groups(track, records):
            out.print(f"[dim]{escape(track.about)}[/]\n")


def track_table(track: Track, group: Group) -> tuple[Table, list[str]]:
    """The table of one group of a track, and the titles of columns for which there is no room."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    filled = track.filled(group)
    columns = _fitting(filled, group)
    for column in columns:
        table.add_column(column.title, justify="right" if column.numeric else "left", overflow="fold")
        table.columns[-1].no_wrap = column.numeric  # where room is short, names take two lines
    for record in group.records:
        table.add_row(*(escape(column.cell(record).text) for column in columns))
    return table, [column.title for column in filled if column not in columns]


def _fitting(columns: list[Column], group: Group) -> list[Column]:
    """Without the last of those that can be spared, as many as there is no room for beside a name of some words."""
    left = list(columns)
    for column in reversed(columns):
        if sum(_width(each, group) for each in left) > WIDTH and column.spare:
            left.remove(column)
    return left


def _width(column: Column, group: Group) -> int:
    texts = [column.title, *(column.cell(record).text for record in group.records)]
    widest = max(map(len, texts)) + 2
    return widest if column.numeric else min(widest, NAME)


def print_rows(title: str, rows: Iterable[dict[str, str]], to: Console | None = None) -> None:
    """Rows of plain text under their keys."""
    listed = list(rows)
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in listed[0] if listed else ():
        table.add_column(name, overflow="fold")
    for row in listed:
        table.add_row(*(escape(text) for text in row.values()))
    (to or console()).print(table)


def print_entries(rows: Iterable[dict[str, str]], to: Console | None = None) -> None:
    """Methods, a paragraph each, under the headings of their kinds."""
    out = to or console()
    kind = ""
    for row in rows:
        if row["kind"] != kind:
            kind = row["kind"]
            out.print(f"[bold]{kind.capitalize()}s[/]")
        out.print(Padding(f"[bold cyan]{escape(row['method'])}[/]  {escape(row['idea'])}", (0, 0, 0, 2)))
        out.print(Padding(f"[dim]{escape(row['paper'])}[/]", (0, 0, 0, 6)))
        out.print(Padding(f"[dim]{escape(row['link'])}[/]", (0, 0, 0, 6)))
        for name in ("variants", "presets", "settings"):
            if row[name]:
                out.print(Padding(f"{name}: {escape(row[name])}", (0, 0, 0, 6)))
    out.print("\nMeasure one with a line in a suite (docs/add-a-method.md); `tokenmark list suites` shows those here.")
