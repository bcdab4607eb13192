"""Data sets by name, prepared on first use where that needs nothing from outside."""

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from tokenmark.data import digits, prepared
from tokenmark.errors import UnknownNameError
from tokenmark.files import writing

EMBEDDED: dict[str, Callable[[Path], None]] = {digits.NAME: digits.prepare}


def load(name: str, split: str, folder: Path) -> prepared.PreparedData:
    """Open one split of a data set in `folder`; an embedded one that is not there yet is prepared first.

    Raises:
        UnknownNameError: no such data set.
        DataError: it is there, but damaged.
        StorageError: it cannot be written.
    """
    if name not in EMBEDDED:
        raise UnknownNameError("data set", name, EMBEDDED)
    place = folder / name
    if not place.exists():
        _prepare(name, folder)
    return prepared.load(place / split)


def _prepare(name: str, folder: Path) -> None:
    """Write a data set beside its place, then move it there; of two first runs, one waits for the other."""
    partial = folder / f".{name}.partial"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{name}.lock"):
            if not (folder / name).exists():
                shutil.rmtree(partial, ignore_errors=True)
                EMBEDDED[name](partial)
                partial.replace(folder / name)
