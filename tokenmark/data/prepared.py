"""A prepared data set: one uint8 array, its labels and a manifest, memory-mapped.

A folder `<name>/<split>/` holds `images.npy` (uint8, `(N, H, W, 3)`), `labels.npy` (int64, `(N,)`) and
`manifest.json`, which is written last: without it there is no data set.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt
import pydantic

from tokenmark.errors import DataError
from tokenmark.files import canonical_json, digest_of, sha256_of, sha256_text, write_atomic, writing

if TYPE_CHECKING:
    import torch
    from torch import Tensor

IMAGES, LABELS, MANIFEST = "images.npy", "labels.npy", "manifest.json"


class Subset(pydantic.BaseModel):
    """What makes a data set less than what was published. Numbers from it compare with nobody's."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    of: int
    """Images of the whole."""
    left_out: int
    limit: int | None = None
    """The number of images that was asked for, classes taking turns; None if the source had no more."""
    left_out_sha256: str
    """Of the list of names beside the arrays."""


class Origin(pydantic.BaseModel):
    """How the pixels came to be. It does not name the data: the same pixels are the same data."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    kind: str
    """The form of the source: tar, flat folder, class folders, parquet shards."""
    files_sha256: str
    """Over names and content hashes of the source's files, in the order of the array."""
    found: dict[str, int]
    """Files by format and mode, such as `JPEG CMYK`."""
    decoder: dict[str, str]
    """Versions of the libraries that decoded and resized."""


class Manifest(pydantic.BaseModel):
    """What a prepared data set is, and where it came from."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    name: str
    split: str
    source: str
    """What was read, in words, with its version."""
    crop: str
    """The named rule by which pixels were made from the source."""
    shape: tuple[int, int, int, int]
    class_counts: tuple[int, ...]
    images_sha256: str
    labels_sha256: str
    subset: Subset | None = None
    origin: Origin | None = None

    @property
    def sha256(self) -> str:
        """The name of these data in a run's specification: the same whatever the pixels were prepared from."""
        facts = self.model_dump(mode="json", exclude={"origin"})
        if self.subset is None:
            del facts["subset"]  # as before there were subsets
        return sha256_text(canonical_json(facts))


@dataclass(frozen=True, slots=True)
class PreparedData:
    """An opened data set. Images are handed out as float32 in [0, 1]."""

    manifest: Manifest
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> int:
        """How many classes the labels count."""
        return len(self.manifest.class_counts)

    @property
    def warnings(self) -> list[str]:
        """What a record of these data must say."""
        subset = self.manifest.subset
        if subset is None:
            return []
        name = f"{self.manifest.name}/{self.manifest.split}"
        return [f"not comparable: {name} is a subset, {len(self):,} of {subset.of:,} images"]

    def batch(self, start: int, stop: int, device: "torch.device | str" = "cpu") -> "tuple[Tensor, Tensor]":
        """Images `(stop - start, 3, H, W)`, float32 in [0, 1], and labels, int64, of these indices."""
        import torch  # noqa: PLC0415  preparing does without it, and it takes seconds to import

        pixels = torch.from_numpy(np.array(self.images[start:stop])).to(device)
        labels = torch.from_numpy(self.labels[start:stop].copy()).to(device)
        return pixels.permute(0, 3, 1, 2).float().div_(255.0).contiguous(), labels


def write(
    folder: Path,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    **facts: Any,
) -> Manifest:
    """Write a data set; `facts` are the manifest's name, split, source and crop.

    Raises:
        StorageError: it cannot be written; no manifest is left behind.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
        _save(folder / IMAGES, images)
    return seal(folder, labels, cast("tuple[int, int, int, int]", images.shape), **facts)


def seal(
    folder: Path, labels: npt.NDArray[np.int64], shape: tuple[int, int, int, int], classes: int = 0, **facts: Any
) -> Manifest:
    """Write labels and manifest beside an array that is whole; `facts` are the manifest's other fields.

    Classes are counted up to the last that has an image, or up to `classes` if that is more.

    Raises:
        StorageError: they cannot be written; no manifest is left behind.
    """
    with writing(folder):
        _save(folder / LABELS, labels)
        manifest = Manifest(
            shape=shape,
            class_counts=tuple(np.bincount(labels, minlength=classes).tolist()),
            images_sha256=sha256_of(folder / IMAGES),
            labels_sha256=sha256_of(folder / LABELS),
            **facts,
        )
    write_atomic(folder / MANIFEST, manifest.model_dump_json(indent=1, exclude_none=True).encode())
    return manifest


def _save(path: Path, array: npt.NDArray[Any]) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def load(folder: Path) -> PreparedData:
    """Open a data set and check every byte against its manifest.

    Raises:
        DataError: it is missing, truncated or altered.
    """
    again = f"delete {folder} and prepare it again"
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"there is no prepared data set in {folder}: prepare it first") from error
    except (pydantic.ValidationError, json.JSONDecodeError) as error:
        raise DataError(f"{folder / MANIFEST} is not a manifest: {again}") from error
    for name, digest in ((IMAGES, manifest.images_sha256), (LABELS, manifest.labels_sha256)):
        if not (folder / name).is_file() or digest_of(folder / name) != digest:
            raise DataError(f"{folder / name} is missing, truncated or altered: {again}")
    try:
        images = np.load(folder / IMAGES, mmap_mode="r", allow_pickle=False)
        labels = np.load(folder / LABELS, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{folder} holds arrays that are no plain .npy files: {again}") from error
    expected = (manifest.shape, np.uint8, manifest.shape[:1], np.int64)
    if (images.shape, images.dtype, labels.shape, labels.dtype) != expected:
        raise DataError(f"{folder} does not hold what its manifest says: {again}")
    return PreparedData(manifest, images, labels)
