"""Two image sets under several protocols: progress while it runs, then one row each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tokenmark import distances, extractors, networks, protocols, sets, tables
from tokenmark.cells import significant
from tokenmark.errors import DataError
from tokenmark.networks import Given
from tokenmark.number_types import number_types
from tokenmark.protocols import Protocol
from tokenmark.protocols.libraries import LIBRARIES
from tokenmark.records import Value
from tokenmark.sets import ImageSet
from tokenmark.terminal import console


@dataclass(frozen=True, slots=True)
class Row:
    """What two sets are apart under one protocol."""

    protocol: Protocol
    n: int
    n_reference: int | None
    """None where the reference is statistics, which do not say."""
    values: tuple[Value, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "protocol": self.protocol.id,
            "version": self.protocol.version,
            "protocol_sha256": self.protocol.sha256,
            "n": self.n,
            "n_reference": self.n_reference,
            "values": [value.model_dump(mode="json", exclude_none=True) for value in self.values],
            "notes": list(self.notes),
        }


def run(
    judged: Path, reference: Path, names: Sequence[str], weights: Given, device: torch.device, batch: int
) -> list[Row]:
    """Measure under every named protocol.

    Raises:
        UnknownNameError: there is no such protocol.
        DataError: a set cannot be read, or holds no images to judge.
        WeightsError: the weights of a protocol's network are missing or altered.
    """
    chosen = [each for name in names for each in (LIBRARIES if name == "all" else (protocols.get(name),))]
    mine, theirs = sets.open_set(judged), sets.open_set(reference)
    if not mine.n:
        raise DataError(f"{judged} holds no images, only statistics: give the judged images first, then the reference")
    images = mine.n + (0 if theirs.statistics else theirs.n)
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TextColumn("images"))
    speed = (TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, *speed, console=Console(stderr=True), transient=True) as progress:
        return [
            _row(protocol, mine, theirs, weights, device, batch, progress, images) for protocol in dict.fromkeys(chosen)
        ]


def _row(
    protocol: Protocol,
    mine: ImageSet,
    theirs: ImageSet,
    weights: Given,
    device: torch.device,
    batch: int,
    progress: Progress,
    images: int,
) -> Row:
    bar = progress.add_task(protocol.id, total=images, rate="")

    def tell(count: int) -> None:
        progress.advance(bar, count)
        speed = progress.tasks[bar].speed
        progress.update(bar, rate=f"{speed:.0f} images/s" if speed else "")

    with number_types(protocol):
        network = networks.load(protocol, device, weights)
        judged = distances.of_set(mine, network, device, batch, tell)
        reference = None if theirs.statistics else distances.of_set(theirs, network, device, batch, tell)
    values = distances.compare(protocol, judged, reference, theirs)
    n_reference = None if theirs.statistics else theirs.n
    return Row(protocol, mine.n, n_reference, tuple(values), tuple(_notes(protocol, mine, weights)))


def _notes(protocol: Protocol, mine: ImageSet, weights: Given) -> list[str]:
    """What keeps the number from standing beside published ones."""
    notes = []
    if protocol.samples is not None and mine.n != protocol.samples:
        notes.append(f"N is {mine.n:,}, the protocol's is {protocol.samples:,}: not comparable with published numbers")
    if weights.path is not None:
        notes.append(f"weights are {weights.path.name}, not the published file: not comparable with published numbers")
    elif protocol.port in networks.EXTRACTORS:
        notes += extractors.check(networks.EXTRACTORS[protocol.port]).warnings
    if protocol.uint8_rule == "none":
        notes.append("the sets are 8-bit already: what this protocol says of floats has no effect")
    return notes


def show(rows: Sequence[Row], judged: Path, reference: Path) -> None:
    """One table, and the notes under it."""
    shown = []
    for row in rows:
        cells = {"protocol": f"{row.protocol.id} v{row.protocol.version}", "N": f"{row.n:,}"}
        cells["N reference"] = "statistics" if row.n_reference is None else f"{row.n_reference:,}"
        found = {value.name: value for value in row.values}
        titles = {"fid": "FID", "fid_infinite": "FID, N→∞", "sfid": "sFID", "inception_score": "IS of A"}
        shown.append({**cells, **{title: _cell(found.get(name)) for name, title in titles.items()}})
    tables.print_rows(f"{judged} against {reference}", shown)
    out = console()
    for row in rows:
        for note in row.notes:
            out.print(f"[yellow]note[/] {row.protocol.id}: {note}", soft_wrap=True)


def _cell(value: Value | None) -> str:
    if value is None:
        return "-"
    error = "" if value.se is None else f" ± {significant(value.se, 2)}"
    return significant(value.value, 4) + error
