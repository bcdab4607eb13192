"""What the plots show: points with intervals, and the Pareto front. A script draws it; a CSV says the same."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tokenmark.cells import name_cell
from tokenmark.leaderboard import csvs, names
from tokenmark.leaderboard.view import Figure, File
from tokenmark.records import Record, Value
from tokenmark.tracks import Group, Track


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction of a plot."""

    value: str
    """Name of the record's value."""
    title: str
    better: Literal["lower", "higher"]
    scale: float = 1.0
    """What a value is multiplied by before it is shown."""
    base: int = 0
    """Base of a logarithmic axis; 0 for a linear one."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A plot that a track has."""

    id: str
    title: str
    x: Axis
    y: Axis
    needs: str = ""
    """A value without which a record has no place in it."""


RFID = Axis("rfid", "rFID", "lower", base=10)
TOP1 = Axis("top1", "top-1 %", "higher", scale=100.0)

PLOTS: dict[str, tuple[Kind, ...]] = {
    "reconstruction": (
        # a file's tokens are its bytes: only codes of a codebook are counted beside each other
        Kind("tokens", "Quality against tokens", Axis("tokens_per_image", "tokens per image", "lower", base=2), RFID,
             needs="codebook_use"),
        Kind("bits", "Quality against bits", Axis("bits_per_pixel", "bits per pixel", "lower", base=10), RFID),
    ),
    "accuracy": (
        Kind("macs", "Accuracy against cost", Axis("macs", "MACs of one image, millions", "lower", scale=1e-6), TOP1),
    ),
    "throughput": (
        Kind("speed", "Accuracy against throughput",
             Axis("speedup_best", "speed-up over the fastest unreduced model", "higher"), TOP1),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Point:
    """A record in a plot, in the records' own units."""

    record: Record
    x: Value
    y: Value
    front: bool = False
    """Whether no other point is at least as good in both directions, and better in one."""


def of_group(track: Track, group: Group, table: str) -> list[tuple[Figure, File]]:
    """The plots of a group that have two points at least, with their CSV; `table` is the anchor of its table."""
    found = []
    for kind in PLOTS.get(track.id, ()):
        points = _points(kind, group.records)
        if len(points) > 1:
            path = names.data_file(track.id, group.records[0].spec.protocol, group.heading, kind.id)
            found.append((_figure(kind, points, path, table), File(path, _csv(kind, points))))
    return found


def _points(kind: Kind, records: Sequence[Record]) -> list[Point]:
    found = [
        Point(record, x, y)
        for record in records
        if (x := record.value(kind.x.value)) is not None
        and (y := record.value(kind.y.value)) is not None
        and (not kind.needs or record.value(kind.needs) is not None)
    ]
    goods = [(_signed(kind.x, point.x.value), _signed(kind.y, point.y.value)) for point in found]
    marked = zip(found, goods, strict=True)
    return [Point(point.record, point.x, point.y, front=on_front(good, goods)) for point, good in marked]


def on_front(point: tuple[float, float], points: Iterable[tuple[float, float]]) -> bool:
    """Whether no other of `points` is at least as good in both, and better in one; more is better."""
    return not any(other != point and other[0] >= point[0] and other[1] >= point[1] for other in points)


def _signed(axis: Axis, value: float) -> float:
    return value if axis.better == "higher" else -value


def _csv(kind: Kind, points: Sequence[Point]) -> bytes:
    header = ["method", "run"]
    for axis in (kind.x, kind.y):
        header += [axis.value, f"{axis.value}_low", f"{axis.value}_high"]
    rows: list[list[csvs.Number]] = []
    for point in points:
        row: list[csvs.Number] = [name_cell(point.record).text, point.record.run]
        for value in (point.x, point.y):
            row += [value.value, *(value.bounds or (None, None))]
        rows.append([*row, "yes" if point.front else "no"])
    return csvs.written([*header, "pareto"], rows)


def _figure(kind: Kind, points: Sequence[Point], csv: str, table: str) -> Figure:
    front = [name_cell(point.record).text for point in points if point.front]
    about = (
        f"{len(points)} points: {kind.y.title} ({kind.y.better} is better) against {kind.x.title}"
        f" ({kind.x.better} is better). Filled marks and the stepped line are the Pareto front:"
        f" {', '.join(front)}."
    )
    data = {
        "x": _axis(kind.x, [point.x for point in points]),
        "y": _axis(kind.y, [point.y for point in points]),
        "points": [_point(kind, point) for point in points],
    }
    return Figure(kind.title, about, data, csv, table)


def _axis(axis: Axis, values: Sequence[Value]) -> dict[str, Any]:
    logarithmic = axis.base if all(value.value > 0 for value in values) else 0
    return {"title": axis.title, "better": axis.better, "base": logarithmic}


def _point(kind: Kind, point: Point) -> dict[str, Any]:
    shown = {
        "name": name_cell(point.record).text,
        "method": point.record.spec.method,
        "front": point.front,
        "length": point.record.spec.tokens,
    }
    for letter, axis, value in (("x", kind.x, point.x), ("y", kind.y, point.y)):
        low, high = value.bounds or (None, None)
        shown[letter] = value.value * axis.scale
        shown[f"{letter}1"] = low if low is None else low * axis.scale
        shown[f"{letter}2"] = high if high is None else high * axis.scale
    return shown
