"""Data sets by name, prepared on first use where that needs nothing from outside.

Those called `<collection>-<side>-<crop>`, such as `imagenet-val-256-adm`, are made by `tokenmark prepare`.
"""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from tokenmark.data import digits, prepared
from tokenmark.data.crops import CROPS
from tokenmark.data.imagenet import COLLECTIONS, prepared_name
from tokenmark.errors import MissingDataError, UnknownNameError
from tokenmark.files import writing

NAME = re.compile(r"(?P<collection>[a-z]+-[a-z]+)-(?P<side>[1-9]\d*)-(?P<crop>[a-z][a-z0-9-]*)")
EMBEDDED: dict[str, Callable[[Path], None]] = {digits.NAME: digits.prepare}


def load(name: str, split: str, folder: Path) -> prepared.PreparedData:
    """Open one split of a data set in `folder`; an embedded one that is not there yet is prepared first.

    Raises:
        UnknownNameError: no such data set.
        MissingDataError: it must be prepared, by the command in the message.
        DataError: it is there, but damaged.
        StorageError: it cannot be written.
    """
    place = folder / name
    if name in EMBEDDED:
        if not place.exists():
            _prepare(name, folder)
    elif not place.exists():
        raise MissingDataError(f"{name} is not in {folder}: prepare it with `{command(name, folder)}`", name)
    return prepared.load(place / split)


def command(name: str, folder: Path) -> str:
    """The command that prepares a data set in `folder`.

    Raises:
        UnknownNameError: no such data set.
    """
    collection, side, crop = parts(name)
    return f"tokenmark prepare {collection} --source PATH --size {side} --crop {crop} --data {shlex.quote(str(folder))}"


def parts(name: str) -> tuple[str, int, str]:
    """Collection, side and crop of a data set that `tokenmark prepare` makes.

    Raises:
        UnknownNameError: no such data set.
    """
    found = NAME.fullmatch(name)
    if found is None or found["collection"] not in COLLECTIONS or found["crop"] not in CROPS:
        usual = (prepared_name(collection, 256, crop) for collection in COLLECTIONS for crop in CROPS)
        raise UnknownNameError("data set", name, [*EMBEDDED, *usual])
    return found["collection"], int(found["side"]), found["crop"]


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
