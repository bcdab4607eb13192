"""Where ImageNet comes from: the forms in which people have it, all opened alike."""

from pathlib import Path

from tokenmark.data.imagenet import Collection
from tokenmark.data.sources.base import Entry, Place, Source
from tokenmark.data.sources.class_folders import folders_of, open_class_folders
from tokenmark.data.sources.flat import holds_pictures, open_flat
from tokenmark.data.sources.parquet import open_parquet, shards_of
from tokenmark.data.sources.tar import open_tar
from tokenmark.errors import DataError

OPENERS = {
    "tar": open_tar,
    "flat folder": open_flat,
    "class folders": open_class_folders,
    "parquet shards": open_parquet,
}


def detect(path: Path, collection: Collection) -> tuple[str, Path]:
    """Which kind of source lies at `path`, and where exactly: there, or in its folder called `val` or the like.

    Raises:
        DataError: it is none; the message says what was expected.
    """
    if path.is_file():
        return ("parquet shards" if path.suffix == ".parquet" else "tar"), path
    if not path.is_dir():
        raise DataError(f"there is no {path}: --source takes {_expected(collection)}")
    for place in (path, *(path / name for name in collection.folders)):
        if place.is_dir():
            if folders_of(place):
                return "class folders", place
            if shards_of(place):
                return "parquet shards", place
            if holds_pictures(place, collection):
                return "flat folder", place
    raise DataError(f"nothing of the {collection.title} is in {path}: --source takes {_expected(collection)}")


def open_source(path: Path, collection: Collection) -> Source:
    """Open a source of any kind.

    Raises:
        DataError: there is none, or it is damaged as a whole.
    """
    kind, place = detect(path, collection)
    try:
        return OPENERS[kind](place, collection)
    except OSError as error:
        raise DataError(f"{place} cannot be read: {error.strerror or error}") from error


def _expected(collection: Collection) -> str:
    return (
        "a tar of the pictures, a folder with the pictures side by side, a folder with one folder per class"
        f" (n01440764, ...), or a folder of parquet shards whose names begin with {collection.folders[-1]}"
    )


__all__ = ["Entry", "Place", "Source", "detect", "open_source"]
