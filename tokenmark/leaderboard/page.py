"""Write the leaderboard: one HTML file without a network, made from records alone."""

import base64
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tokenmark import __version__, registry
from tokenmark.errors import TokenmarkError
from tokenmark.files import write_atomic
from tokenmark.leaderboard import plots
from tokenmark.records import Record
from tokenmark.store import Results
from tokenmark.tracks import TRACKS, Group, Track, current, groups

HERE = Path(__file__).parent


def write(results: Results, out: Path) -> Path:
    """Write the page of all records in `results` to `out`.

    Raises:
        RecordError: a record was altered or is truncated: a page must not show it.
        StorageError: the page cannot be written.
    """
    write_atomic(out, render(results, results.all(), out.parent).encode())
    return out


def render(results: Results, records: Sequence[Record], folder: Path) -> str:
    """The page's HTML, for a file in `folder`; links to records are relative to it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html.jinja")
    standing = current(records)
    return template.render(
        version=__version__,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704  our own file
        script=Markup((HERE / "page.js").read_text(encoding="utf-8")),  # noqa: S704  our own file
        tracks=[_track(track, records) for track in TRACKS if groups(track, records)],
        records=[_details(record, results, folder, standing=record in standing) for record in by_title(records)],
    )


def by_title(records: Sequence[Record]) -> list[Record]:
    """Records in the order in which a person looks for them: q10 after q5."""

    def key(record: Record) -> list[tuple[int, str]]:
        # letters and numbers take turns in the split, so that like is compared with like
        return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", record.spec.title)]

    return sorted(records, key=key)


def _track(track: Track, records: Sequence[Record]) -> dict[str, Any]:
    found = groups(track, records)
    return {
        "id": track.id,
        "title": track.title,
        "about": track.about,
        "groups": [_group(track, group) for group in found],
        "plots": [Markup(svg) for group in found for svg in plots.of(track, group)],  # noqa: S704  escaped by plots
    }


def _group(track: Track, group: Group) -> dict[str, Any]:
    columns = track.filled(group)
    rows = [{"run": record.run, "cells": [column.cell(record) for column in columns]} for record in group.records]
    return {"heading": group.heading, "columns": columns, "rows": rows}


def _details(record: Record, results: Results, folder: Path, *, standing: bool) -> dict[str, Any]:
    path = results.path(record.spec)
    pictures = []
    for picture in record.pictures.values():
        data = base64.b64encode((path.parent / picture.file).read_bytes()).decode()
        pictures.append({"source": f"data:image/png;base64,{data}", "caption": picture.caption})
    return {
        "record": record,
        "superseded": not standing,
        "paper": _paper(record),
        "link": Path(os.path.relpath(path, folder)).as_posix(),
        "pictures": pictures,
        "json": record.to_json().decode(),
    }


def _paper(record: Record) -> dict[str, str] | None:
    """The paper of the method, where that method is installed here."""
    try:
        paper = registry.get(record.spec.method).paper
    except TokenmarkError:
        return None
    # a plugin names its own links: only ordinary ones become links on the page
    url = paper.url if paper.url.startswith(("https://", "http://")) else ""
    return {"text": paper.citation, "url": url}
