"""A folder with all pictures side by side, as the official tar unpacks."""

import os
from functools import partial
from pathlib import Path

from tokenmark.data.imagenet import Collection
from tokenmark.data.sources.base import Place, Source, entry, evenly


def holds_pictures(path: Path, collection: Collection) -> bool:
    """Whether a file in the folder has a published name."""
    with os.scandir(path) as found:
        return any(collection.canonical(item.name) for item in found)


def open_flat(path: Path, collection: Collection) -> Source:
    """The pictures of a folder, in the order of their names."""
    entries = (entry(collection, name, (name,)) for name in sorted(file.name for file in path.iterdir()))
    return Source("flat folder", evenly(found for found in entries if found), partial(read_file, str(path)))


def read_file(folder: str, place: Place) -> bytes:
    """The bytes of a file below a folder."""
    return Path(folder, *place).read_bytes()
