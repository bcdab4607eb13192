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
from tokenmark.errors import DataError, UnknownNameError
from tokenmark.files import writing

NAME = re.compile(r"(?P<collection>[a-z]+-[a-z]+)-(?P<side>[1-9]\d*)-(?P<crop>[a-z-]+)")
EMBEDDED: dict[str, Callable[[Path], None]] = {digits.NAME: digits.prepare}


def load(name: str, split: str, folder: Path) -> prepared.PreparedData:
    """Open one split of a data set in `folder`; an embedded one that is not there yet is prepared first.

    Raises:
        UnknownNameError: no such data set.
        DataError: it is there, but damaged; or it must be prepared, by the command in the message.
        StorageError: it cannot be written.
    """
    place = folder / name
    if name in EMBEDDED:
        if not place.exists():
            _prepare(name, folder)
    elif not place.exists():
        raise DataError(f"{name} is not in {folder}: prepare it with `{command(name, folder)}`")
    return prepared.load(place / split)


def command(name: str, folder: Path) -> str:
    """The command that prepares a data set in `folder`.

    Raises:
        UnknownNameError: no such data set.
    """
    found = NAME.fullmatch(name)
    if found is None or found["collection"] not in COLLECTIONS or found["crop"] not in CROPS:
        usual = (prepared_name(collection, 256, crop) for collection in COLLECTIONS for crop in CROPS)
        raise UnknownNameError("data set", name, [*EMBEDDED, *usual])
    wanted = f"{found['collection']} --source PATH --size {found['side']} --crop {found['crop']}"
    return f"tokenmark prepare {wanted} --data {shlex.quote(str(folder))}"


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
