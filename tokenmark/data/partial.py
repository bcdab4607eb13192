"""An array that is being filled, and the journal of what is in it: what a killed preparation goes on from.

Rows are written by index from several processes, with plain writes: on a full disk they give an error, where a memory
map would kill the process. The journal has a line per finished row, with a checksum of its pixels. A line counts only
if its row still has that checksum, so rows that never reached the disk are made again.
"""

import json
import shutil
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from tokenmark.data.crops import Pixels
from tokenmark.files import canonical_json, write_atomic, writing


class Done(NamedTuple):
    """A finished row: what it was made of, and what it is."""

    row: int
    sha256: str
    """Of the file's bytes."""
    kind: str
    """What the file was, such as `JPEG CMYK`."""
    crc32: int
    """Of the row's pixels."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Where the rows of an array lie in its file."""

    path: str
    offset: int
    """Bytes before the first row."""
    shape: tuple[int, int, int, int]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        _, height, width, colours = self.shape
        return height * width * colours

    def write(self, file: BinaryIO, index: int, pixels: Pixels) -> int:
        """Write a row into the opened file; gives its checksum."""
        data = pixels.tobytes()
        file.seek(self.offset + index * self.row_bytes)
        file.write(data)
        return zlib.crc32(data)

    def holds(self, file: BinaryIO, done: Done) -> bool:
        """Whether a row still has its checksum."""
        file.seek(self.offset + done.row * self.row_bytes)
        return zlib.crc32(file.read(self.row_bytes)) == done.crc32


class Partial:
    """The folder of an unfinished preparation. One process at a time; the caller holds the lock.

    Args:
        folder: holds `journal.jsonl`, and `data/` as it will be published.
        images: where in `data/` the array lies.
        shape: of the array.
        identity: everything that decides what a row holds; with another identity all begins anew.
    """

    def __init__(self, folder: Path, images: Path, shape: tuple[int, int, int, int], identity: dict[str, Any]) -> None:
        self.folder, self.published = folder, folder / "data"
        self._journal, self._head = folder / "journal.jsonl", canonical_json(identity)
        self._images, self._shape = self.published / images, shape
        self.place = self._images.parent

    def open(self) -> tuple[Rows, dict[int, Done]]:
        """The array, made if it is not there, and the rows that are in it already.

        Raises:
            StorageError: it cannot be written.
        """
        lines = self._lines()
        with writing(self.folder):
            if not lines or lines[0] != self._head or not self._images.is_file():
                self._begin()
                lines = [self._head]
            rows = Rows(str(self._images), self._offset(), self._shape)
            done = self._believed(rows, lines[1:])
        kept = "".join(_line(row) for row in done.values())
        write_atomic(self._journal, f"{self._head}\n{kept}".encode())
        return rows, done

    def append(self, done: Iterable[Done]) -> None:
        """Note finished rows."""
        with writing(self._journal), self._journal.open("a", encoding="utf-8") as file:
            file.write("".join(map(_line, done)))

    def missing_bytes(self) -> int:
        """How much of the array has no place on the disk yet."""
        taken = self._images.stat().st_blocks * 512 if hasattr(self._images.stat(), "st_blocks") else 0
        return max(self._images.stat().st_size - taken, 0)

    def _lines(self) -> list[str]:
        try:
            return self._journal.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return []

    def _begin(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.place.mkdir(parents=True)
        np.lib.format.open_memmap(self._images, mode="w+", dtype=np.uint8, shape=self._shape)  # a hole, no bytes yet

    def _offset(self) -> int:
        with self._images.open("rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            return file.tell()

    def _believed(self, rows: Rows, lines: Iterable[str]) -> dict[int, Done]:
        found = [done for line in lines if (done := _parsed(line)) is not None]
        with self._images.open("rb") as file:
            return {done.row: done for done in found if rows.holds(file, done)}


def _line(done: Done) -> str:
    return f"{json.dumps(done)}\n"


def _parsed(line: str) -> Done | None:
    """A line of the journal; None for one that was cut off."""
    try:
        return Done(*json.loads(line))
    except (ValueError, TypeError):
        return None
