"""Data sets by name, prepared on first use where that needs nothing from outside."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tokenmark.data import digits, prepared
from tokenmark.errors import UnknownNameError

EMBEDDED: dict[str, Callable[[Path], None]] = {digits.NAME: digits.prepare}


def load(name: str, split: str, folder: Path) -> prepared.PreparedData:
    """Open one split of a data set in `folder`; an embedded one that is not there yet is prepared first.

    Raises:
        UnknownNameError: no such data set.
        DataError: it is there, but damaged.
    """
    if name not in EMBEDDED:
        raise UnknownNameError("data set", name, EMBEDDED)
    place = folder / name
    if not place.exists():
        partial = folder / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        EMBEDDED[name](partial)
        partial.replace(place)
    return prepared.load(place / split)
