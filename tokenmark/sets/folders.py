"""A folder of image files, with or without folders inside."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from tokenmark.errors import DataError
from tokenmark.sets.base import ImageSet, Pixels

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm"})


def folder_set(path: Path) -> ImageSet:
    """All images below `path`, in the order of their names.

    Raises:
        DataError: there are none.
    """
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise DataError(f"{path} holds no images ({', '.join(sorted(SUFFIXES))})")
    return ImageSet(path, "folder", len(files), lambda size: _batches(files, size))


def _batches(files: list[Path], size: int) -> Iterator[Pixels]:
    waiting: list[Pixels] = []
    for file in files:
        pixels = read(file)
        if waiting and (len(waiting) == size or pixels.shape != waiting[0].shape):
            yield np.stack(waiting)
            waiting = []
        waiting.append(pixels)
    if waiting:
        yield np.stack(waiting)


def read(file: Path) -> Pixels:
    """One image file as RGB, `(H, W, 3)`; its EXIF orientation is not applied, as in every FID library.

    Raises:
        DataError: it is truncated or no image.
    """
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DataError(f"{file} is truncated or no image ({error}): replace it, or take it out of the set") from error
