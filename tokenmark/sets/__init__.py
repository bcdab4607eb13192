"""Sets of images as people hand them around: folders, npz files, arrays, prepared data, reference statistics."""

from pathlib import Path

from tokenmark.errors import DataError
from tokenmark.sets import arrays, folders
from tokenmark.sets.arrays import of_prepared
from tokenmark.sets.base import ImageSet, Statistics

__all__ = ["ImageSet", "Statistics", "of_prepared", "open_set"]


def open_set(path: Path) -> ImageSet:
    """Open whatever lies at `path`.

    Raises:
        DataError: nothing is there, or it is none of a folder of images, prepared data, an .npz or an .npy file.
    """
    if path.is_dir():
        return arrays.prepared_set(path) if (path / "manifest.json").is_file() else folders.folder_set(path)
    if not path.exists():
        raise DataError(f"there is nothing at {path}: give a folder of images, prepared data, an .npz or an .npy file")
    if path.suffix == ".npz":
        return arrays.npz_set(path)
    if path.suffix == ".npy":
        return arrays.npy_set(path)
    raise DataError(f"{path} is no image set: give a folder of images, prepared data, an .npz or an .npy file")
