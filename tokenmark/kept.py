"""Samples that are kept: the first N of a run, as the npz that ADM's evaluator reads."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile

import numpy as np
from torch import Tensor

from tokenmark.files import write_atomic, writing

__all__ = ["Keep", "Kept"]

LABEL = 8
"""Bytes of a label in its file."""


@dataclass(frozen=True, slots=True)
class Keep:
    """What the user wants to keep."""

    samples: int
    """How many of a run's first samples; a run that has fewer keeps all."""
    folder: Path


class Kept:
    """The samples of one run that are kept, written where they belong as they come, in whatever order.

    Until all are there they lie in two files: `<run>.images`, the bytes of `(N, S, S, 3)`, and `<run>.labels`, an
    int64 for every sample that is there: its class and 1 more. A killed run goes on with both, and several processes
    write into both.
    """

    def __init__(self, keep: Keep, run: str, total: int) -> None:
        self.n = min(keep.samples, total)
        self.path = keep.folder / f"{run}.npz"
        self._images, self._labels = keep.folder / f"{run}.images", keep.folder / f"{run}.labels"

    @property
    def done(self) -> bool:
        """Whether the npz is there, with as many samples as are wanted."""
        try:
            with np.load(self.path, allow_pickle=False) as file:
                return len(file["arr_1"]) == self.n
        except (OSError, ValueError, KeyError, BadZipFile):
            return False

    def add(self, start: int, images: Tensor, labels: Tensor) -> None:
        """Keep, of samples from `start` on, those among the first N; images `(B, 3, S, S)` in [0, 1] as measured.

        Raises:
            StorageError: the disk is full, or the like.
        """
        count = min(start + len(images), self.n) - start
        if count <= 0:
            return
        pixels = (images[:count] * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
        _put(self._images, start * pixels[0].nbytes, pixels.tobytes())
        _put(self._labels, start * LABEL, (labels[:count].cpu().numpy().astype(np.int64) + 1).tobytes())

    def missing(self) -> list[int]:
        """Which of the first N are not there yet."""
        known = self._known()
        return [index for index in range(self.n) if index >= len(known) or not known[index]]

    def finish(self) -> Path:
        """Write the npz, once none is missing, and remove the two files; gives its path.

        It holds `arr_0`, uint8 `(N, S, S, 3)`, and `arr_1`, int64 `(N,)`, the classes.
        """
        side = round((self._images.stat().st_size // len(self._known()) // 3) ** 0.5)
        images = np.memmap(self._images, np.uint8, "r", shape=(self.n, side, side, 3))
        labels = self._known()[: self.n] - 1

        def write(file: BinaryIO) -> None:
            np.savez(file, arr_0=images, arr_1=labels)

        write_atomic(self.path, write)
        for left in (self._images, self._labels):
            left.unlink()
        return self.path

    def _known(self) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
        return np.frombuffer(self._labels.read_bytes() if self._labels.is_file() else b"", np.int64)


def _put(path: Path, place: int, data: bytes) -> None:
    """Write into a file at a place and leave the rest; a mapped file would end the process where the disk is full."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            while data:
                written = os.pwrite(descriptor, data, place)
                data, place = data[written:], place + written
        finally:
            os.close(descriptor)
