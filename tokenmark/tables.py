"""Tables for the terminal, at most 100 columns wide."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tokenmark.display import console
from tokenmark.records import Record
from tokenmark.tracks import TRACKS, Group, Track, groups


def print_tracks(records: Sequence[Record], to: Console | None = None) -> None:
    """One table per track and group, each ranked."""
    out = to or console()
    for track in TRACKS:
        for group in groups(track, records):
            out.print(track_table(track, group))
            out.print()


def track_table(track: Track, group: Group) -> Table:
    """The table of one group of a track."""
    table = Table(
        title=f"{track.title} — {group.heading}",
        caption=track.about,
        title_justify="left",
        caption_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
    )
    for column in track.columns:
        table.add_column(column.title, justify="right" if column.numeric else "left", overflow="fold")
    for record in group.records:
        table.add_row(*(escape(column.cell(record).text) for column in track.columns))
    return table


def print_rows(title: str, rows: Iterable[dict[str, str]], to: Console | None = None) -> None:
    """Rows of plain text under their keys."""
    listed = list(rows)
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in listed[0] if listed else ():
        table.add_column(name, overflow="fold")
    for row in listed:
        table.add_row(*(escape(text) for text in row.values()))
    (to or console()).print(table)
