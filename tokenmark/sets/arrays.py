"""Arrays of images: npz files as papers exchange them, npy files, prepared data.

An npz is read as a stream, batch by batch: 50,000 images of 256 x 256 are 9.8 GB.
"""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from tokenmark.data import prepared
from tokenmark.errors import DataError
from tokenmark.sets.base import ImageSet, Pixels, Statistics

PIXELS = "arr_0"
"""The name under which `np.savez(file, images)` stores them: ADM's sample and reference files have it."""
NAMED = {"pool": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
"""ADM's names of statistics."""


def prepared_set(path: Path) -> ImageSet:
    """A prepared data set, every byte checked."""
    return of_prepared(prepared.load(path), path)


def of_prepared(data: prepared.PreparedData, path: Path) -> ImageSet:
    """An opened data set as a set of images."""
    return ImageSet(path, f"prepared {data.manifest.name}", len(data), lambda size: _slices(data.images, size))


def npy_set(path: Path) -> ImageSet:
    """One uint8 array `(N, H, W, 3)`, memory-mapped."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} is not a whole .npy file: {error}") from error
    _check(path, array.shape, array.dtype)
    return ImageSet(path, "npy", len(array), lambda size: _slices(array, size))


def npz_set(path: Path) -> ImageSet:
    """Images under `arr_0`, statistics under `mu` and `sigma` (and `mu_s`, `sigma_s`), or both.

    Raises:
        DataError: the file is damaged, holds neither, or something else than 8-bit images.
    """
    try:
        with zipfile.ZipFile(path) as file:
            names = {name.removesuffix(".npy") for name in file.namelist()}
            found = {kind: keys for kind, keys in NAMED.items() if names.issuperset(keys)}
            statistics = {kind: _statistics(path, file, keys) for kind, keys in found.items()}
            n = _header(path, file)[0] if PIXELS in names else 0
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{path} is not a whole .npz file: {error}") from error
    if not n and not statistics:
        held = ", ".join(sorted(names)) or "nothing"
        raise DataError(f"{path} holds {held}; wanted is {PIXELS} (images) or mu and sigma (statistics)")
    return ImageSet(path, "npz", n, lambda size: _stream(path, size), statistics)


def _statistics(path: Path, file: zipfile.ZipFile, keys: tuple[str, str]) -> Statistics:
    mean, covariance = (_whole(path, file, key) for key in keys)
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise DataError(
            f"{path}: {keys[0]} is {mean.shape} and {keys[1]} {covariance.shape}; wanted is (D,) and (D, D)"
        )
    return Statistics(mean, covariance)


def _whole(path: Path, file: zipfile.ZipFile, key: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    with file.open(f"{key}.npy") as member:
        try:
            array = np.lib.format.read_array(member, allow_pickle=False)
            return np.asarray(array, np.float64)
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}: {key} is no array of numbers: {error}") from error


def _header(path: Path, file: zipfile.ZipFile) -> tuple[int, ...]:
    with file.open(f"{PIXELS}.npy") as member:
        return _read_header(path, member)


def _read_header(path: Path, member: IO[bytes]) -> tuple[int, ...]:
    """The shape of the images; afterwards `member` stands at their first byte."""
    try:
        version = np.lib.format.read_magic(member)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(member)
    except ValueError as error:
        raise DataError(f"{path}: {PIXELS} is no plain array: {error}") from error
    _check(path, shape, dtype)
    if fortran:
        raise DataError(f"{path}: {PIXELS} is stored by columns; save it again with np.ascontiguousarray")
    return tuple(shape)


def _check(path: Path, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise DataError(f"{path} holds {dtype} of shape {shape}; wanted are 8-bit images, uint8 (N, H, W, 3)")


def _stream(path: Path, size: int) -> Iterator[Pixels]:
    with zipfile.ZipFile(path) as file:
        if f"{PIXELS}.npy" not in file.namelist():
            return
        with file.open(f"{PIXELS}.npy") as member:
            n, *rest = _read_header(path, member)
            each = int(np.prod(rest))
            for start in range(0, n, size):
                wanted = min(size, n - start)
                try:
                    data = member.read(wanted * each)
                except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                    raise DataError(f"{path} is damaged after image {start}: {error}") from error
                if len(data) != wanted * each:
                    raise DataError(f"{path} ends after image {start}: it is truncated")
                yield np.frombuffer(data, np.uint8).reshape(wanted, *rest)


def _slices(array: Pixels, size: int) -> Iterator[Pixels]:
    for start in range(0, len(array), size):
        yield np.array(array[start : start + size])
