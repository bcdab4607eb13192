"""A folder per class, called by its WordNet id, as torchvision's ImageFolder reads it."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tokenmark.data.imagenet import WNID, Collection, class_of
from tokenmark.data.sources.base import Entry, Source, entry, evenly
from tokenmark.data.sources.flat import read_file
from tokenmark.errors import DataError


def folders_of(path: Path) -> list[str]:
    """The names of the class folders in a folder, sorted."""
    with os.scandir(path) as found:
        return sorted(item.name for item in found if WNID.fullmatch(item.name) and item.is_dir())


def open_class_folders(path: Path, collection: Collection) -> Source:
    """The pictures of all class folders, class by class.

    Raises:
        DataError: a folder is called by a WordNet id that is none of ImageNet's 1,000 classes.
    """
    names = folders_of(path)
    strange = [name for name in names if name not in class_of()]
    if strange:
        raise DataError(
            f"{path} holds folders that are none of ImageNet's 1,000 classes ({', '.join(strange[:3])}"
            f"{', ...' if len(strange) > 3 else ''}): move them away"
        )
    return Source("class folders", evenly(_pictures(path, names, collection)), partial(read_file, str(path)))


def _pictures(path: Path, names: list[str], collection: Collection) -> Iterator[Entry]:
    for name in names:
        for file in sorted((path / name).iterdir()):
            found = entry(collection, f"{name}/{file.name}", (name, file.name), class_of()[name])
            if found is not None:
                yield found
