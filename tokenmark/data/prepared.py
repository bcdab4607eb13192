"""A prepared data set: one uint8 array, its labels and a manifest, memory-mapped.

A folder `<name>/<split>/` holds `images.npy` (uint8, `(N, H, W, 3)`), `labels.npy` (int64, `(N,)`) and
`manifest.json`, which is written last: without it there is no data set.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pydantic
import torch
from torch import Tensor

from tokenmark.errors import DataError
from tokenmark.files import canonical_json, sha256_of, sha256_text, write_atomic, writing

IMAGES, LABELS, MANIFEST = "images.npy", "labels.npy", "manifest.json"


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

    @property
    def sha256(self) -> str:
        """The name of these data in a run's specification."""
        return sha256_text(canonical_json(self.model_dump(mode="json")))


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

    def batch(self, start: int, stop: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
        """Images `(stop - start, 3, H, W)`, float32 in [0, 1], and labels, int64, of these indices."""
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
        for name, array in ((IMAGES, images), (LABELS, labels)):
            with (folder / name).open("wb") as file:
                np.save(file, array, allow_pickle=False)
    manifest = Manifest(
        shape=images.shape,
        class_counts=tuple(np.bincount(labels).tolist()),
        images_sha256=sha256_of(folder / IMAGES),
        labels_sha256=sha256_of(folder / LABELS),
        **facts,
    )
    write_atomic(folder / MANIFEST, manifest.model_dump_json(indent=1).encode())
    return manifest


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
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
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
