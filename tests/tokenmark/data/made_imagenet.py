"""A made ImageNet: real picture files under published names, in every form in which people have the real one."""

import functools
import importlib.util
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tokenmark.data import labels
from tokenmark.data.imagenet import validation_name, wnids

PYARROW = importlib.util.find_spec("pyarrow") is not None
pyarrow = pytest.mark.skipif(
    not PYARROW, reason="pyarrow, which reads parquet, is not installed: it comes with the extra `parquet`"
)
LABELLED = ("class folders", "hub's flat folder", pytest.param("parquet shards", marks=pyarrow))
KINDS = ("tar", "flat folder", *LABELLED)
"""Forms in which people have ImageNet; the first two have no labels."""


def label_of(number: int) -> int:
    """The made label of validation image `number`: 50 of each class, neighbours in different ones."""
    return number * 7919 % 1000


@dataclass(frozen=True)
class File:
    """One picture."""

    number: int
    data: bytes

    @property
    def name(self) -> str:
        return validation_name(self.number)

    @property
    def label(self) -> int:
        return label_of(self.number)

    @property
    def wnid(self) -> str:
        return wnids()[self.label]


def pixels(seed: int, width: int, height: int, colours: int = 3) -> np.ndarray:
    """A smooth picture with some noise, uint8 `(height, width, colours)`."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, colours), dtype=np.uint8)
    planes = [Image.fromarray(coarse[..., plane]).resize((width, height), 3) for plane in range(colours)]
    noise = rng.integers(-12, 13, (height, width, colours))
    return np.clip(np.stack([np.asarray(plane) for plane in planes], -1) + noise, 0, 255).astype(np.uint8)


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def rotated_by_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def rgb(seed: int, width: int, height: int, **options) -> bytes:
    return encoded(Image.fromarray(pixels(seed, width, height)), quality=90, **options)


@functools.cache
def files() -> tuple[File, ...]:
    """Odd sizes and modes, far apart among the published numbers."""
    grey = Image.fromarray(pixels(100, 61, 40, 1)[..., 0])
    cmyk = Image.fromarray(pixels(101, 50, 37, 4), "CMYK")
    palette = Image.fromarray(pixels(102, 33, 45)).quantize(40)
    alpha = Image.fromarray(pixels(103, 40, 40, 4), "RGBA")
    contents = [
        *(rgb(seed, 20 + 37 * seed % 90, 18 + 53 * seed % 70) for seed in range(14)),
        encoded(grey),
        encoded(cmyk),
        rgb(104, 70, 47, progressive=True),
        rgb(105, 45, 80, exif=rotated_by_exif()),
        encoded(palette, "PNG"),
        encoded(alpha, "PNG"),
        rgb(106, 1, 16),
        rgb(107, 200, 150),
    ]
    return tuple(File(1 + 2269 * place, data) for place, data in enumerate(contents))


def write_tar(path: Path, made: tuple[File, ...], prefix: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for file in sorted(made, key=lambda file: file.number * 31 % 97):
            member = tarfile.TarInfo(prefix + file.name)
            member.size = len(file.data)
            archive.addfile(member, io.BytesIO(file.data))
    return path


def write_flat(folder: Path, made: tuple[File, ...]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file in made:
        (folder / file.name).write_bytes(file.data)
    return folder


def write_hub_flat(folder: Path, made: tuple[File, ...]) -> Path:
    """Side by side with the class behind the name, as the hub's archives unpack."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in made:
        (folder / f"{Path(file.name).stem}_{file.wnid}.JPEG").write_bytes(file.data)
    return folder


def write_class_folders(folder: Path, made: tuple[File, ...]) -> Path:
    """All 1,000 folders, most of them empty if there are few files."""
    for wnid in wnids():
        (folder / wnid).mkdir(parents=True)
    for file in made:
        (folder / file.wnid / file.name).write_bytes(file.data)
    return folder


def write_parquet(folder: Path, made: tuple[File, ...], *, named: bool = True, group: int = 3) -> Path:
    """Two shards in small row groups, the second half of the files in the first."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    half = len(made) // 2
    for shard, part in enumerate((made[half:], made[:half])):
        images = [
            {"bytes": file.data, "path": f"{Path(file.name).stem}_{file.wnid}.JPEG" if named else None} for file in part
        ]
        table = pa.table({"image": images, "label": [file.label for file in part]})
        pq.write_table(table, folder / f"validation-0000{shard}-of-00002.parquet", row_group_size=group)
    return folder


def ilsvrc_id(label: int) -> int:
    """The made ILSVRC2012_ID of a class: an order of its own, from 1."""
    return label * 37 % 1000 + 1


def write_devkit(folder: Path) -> Path:
    """Ground truth and `meta.mat`, whose synsets after the first 1,000 are no classes."""
    folder.mkdir(parents=True, exist_ok=True)
    wnid_of = {ilsvrc_id(label): wnid for label, wnid in enumerate(wnids())}
    rows = [(number, wnid_of.get(number, f"n9{number:07d}"), "words") for number in range(1, 1031)]
    synsets = np.array(rows, [("ILSVRC2012_ID", object), ("WNID", object), ("words", object)])
    savemat(folder / labels.META, {"synsets": synsets.reshape(-1, 1)})
    lines = (f"{ilsvrc_id(label_of(number))}\n" for number in range(1, 50_001))
    (folder / labels.GROUND_TRUTH).write_text("".join(lines))
    return folder


def pack_devkit(devkit: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for file in sorted(devkit.iterdir()):
            archive.add(file, f"ILSVRC2012_devkit_t12/data/{file.name}")
    return path
