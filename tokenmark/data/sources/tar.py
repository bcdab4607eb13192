"""The official tar: pictures side by side in one file, read where they lie without unpacking."""

import functools
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from tokenmark.data.imagenet import Collection
from tokenmark.data.sources.base import Entry, Source, entry, evenly
from tokenmark.errors import DataError

COMPRESSED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip")


def open_tar(path: Path, collection: Collection) -> Source:
    """The pictures of a tar.

    Raises:
        DataError: it is compressed, cut off, or no tar.
    """
    if path.suffix.lower() in COMPRESSED:
        raise DataError(f"{path} is compressed, so that no picture can be found without unpacking: unpack it first")
    try:
        with tarfile.open(path, "r:") as archive:
            entries = evenly(_pictures(archive, collection))
    except tarfile.TarError as error:
        raise DataError(
            f"{path} is no tar, or was cut off ({error}): get it again, and compare its size and checksum with the"
            " publisher's"
        ) from error
    return Source("tar", entries, partial(_read, str(path)))


def _pictures(archive: tarfile.TarFile, collection: Collection) -> Iterator[Entry]:
    for member in archive:
        if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
            found = entry(collection, member.name, (member.offset_data, member.size))
            if found is not None:
                yield found


@functools.cache
def _opened(path: str) -> BinaryIO:
    return Path(path).open("rb")  # one per process, until it ends


def _read(path: str, place: tuple[int, int]) -> bytes:
    offset, size = place
    file = _opened(path)
    file.seek(offset)
    return file.read(size)
