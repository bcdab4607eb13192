"""Curves over the number of tokens: the runs of one variable-length method, ordered by length."""

import contextlib
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenmark.files import sha256_text
from tokenmark.records import Record

SHOWN = ("rfid", "psnr", "ssim")


@dataclass(frozen=True, slots=True)
class Curve:
    """One method's values at rising token counts."""

    suite: str
    title: str
    tokens: tuple[int, ...]
    values: dict[str, tuple[float, ...]]
    seal: str
    """Hash of the seals of the records it is made of."""


def of(records: Iterable[Record]) -> list[Curve]:
    """The curves that these records make: same experiment but for `tokens`, at two lengths or more."""
    groups: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.spec.tokens is not None:
            groups[record.spec.model_copy(update={"tokens": None}).run].append(record)
    return [_curve(sorted(group, key=_length)) for group in groups.values() if len(group) > 1]


def _length(record: Record) -> int:
    return record.spec.tokens or 0


def _curve(group: list[Record]) -> Curve:
    spec = group[0].spec
    names = [name for name in SHOWN if all(record.value(name) for record in group)]
    values = {
        name: tuple(value.value for record in group if (value := record.value(name)) is not None) for name in names
    }
    seal = sha256_text(" ".join(record.seal for record in group))
    return Curve(spec.suite, f"{spec.method}/{spec.variant}", tuple(map(_length, group)), values, seal)


@contextlib.contextmanager
def png(curve: Curve) -> Iterator[Path]:
    """The curve as a picture in a file that is gone afterwards."""
    from matplotlib.figure import Figure  # noqa: PLC0415  a second to import, and seldom needed

    figure = Figure(figsize=(4.2 * len(curve.values), 3.4), layout="constrained")
    for place, (name, values) in enumerate(curve.values.items()):
        axes = figure.add_subplot(1, len(curve.values), place + 1)
        axes.plot(curve.tokens, values, marker="o")
        axes.set_xscale("log", base=2)
        axes.set_xticks(curve.tokens, labels=[str(tokens) for tokens in curve.tokens])
        axes.set_xlabel("tokens")
        axes.set_ylabel(name)
        axes.grid(visible=True, alpha=0.3)
    figure.suptitle(f"{curve.title}, suite {curve.suite}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "curve.png"
        figure.savefig(path, dpi=110)
        yield path
