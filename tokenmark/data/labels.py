"""Labels of the validation images, for sources that have none: a tar, or a flat folder.

A class's index is the place of its WordNet id in sorted order. The devkit's ground truth does not hold it: line k is
the ILSVRC2012_ID (1 to 1000, in an order of its own) of image k, and `meta.mat`, also in the devkit, says which
WordNet id that is. Both are needed; or a file that names WordNet ids or indices itself.
"""

import io
import tarfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

from tokenmark.data.imagenet import CLASSES, COLLECTIONS, WNID, class_of, validation_name
from tokenmark.errors import DataError

VAL = COLLECTIONS["imagenet-val"]
Labels = dict[str, int]
"""Class index by published name."""

GROUND_TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
DEVKIT = "ILSVRC2012_devkit_t12"
BESIDE = (
    f"{DEVKIT}.tar.gz",
    DEVKIT,
    GROUND_TRUTH,
    "LOC_val_solution.csv",
    "imagenet_2012_validation_synset_labels.txt",
)
"""Names under which labels are looked for where none are given."""

TAKES = (
    f"the devkit ({DEVKIT}.tar.gz, or its folder), {GROUND_TRUTH} with {META} beside it, LOC_val_solution.csv, or a"
    " text with a WordNet id per image"
)


def beside(source: Path) -> Path | None:
    """A file or folder of labels in the source's folder, or one level above."""
    folders = (source.parent,) if source.is_file() else (source, source.parent)
    return next((folder / name for folder in folders for name in BESIDE if (folder / name).exists()), None)


def read(path: Path) -> Labels:
    """The labels of all 50,000 validation images.

    Raises:
        DataError: it is none of the known forms, or not whole.
    """
    try:
        labels = _read(path)
    except (OSError, UnicodeDecodeError, tarfile.TarError, zlib.error, EOFError) as error:
        raise DataError(f"labels cannot be read from {path} ({error}): --labels takes {TAKES}") from error
    counts = Counter(labels.values())
    if len(labels) != VAL.images or set(counts.values()) != set(VAL.per_class) or len(counts) != CLASSES:
        raise DataError(
            f"{path} labels {len(labels):,} images in {len(counts):,} classes, and 50,000 in 1,000 with 50 in each are"
            " needed: it is not whole, or of another data set"
        )
    return labels


def _read(path: Path) -> Labels:
    if path.is_dir():
        folder = path if (path / GROUND_TRUTH).exists() else path / "data"
        return _by_id((folder / GROUND_TRUTH).read_text(), _wnid_of((folder / META).read_bytes()))
    if tarfile.is_tarfile(path):
        truth, meta = _of_devkit(path)
        return _by_id(truth.decode(), _wnid_of(meta))
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = [line.replace(",", " ").split() for line in lines if line.strip()]
    if not rows:
        raise DataError(f"{path} is empty: --labels takes {TAKES}")
    if len(rows[0]) == 1 and rows[0][0].isdigit():
        return _by_id("\n".join(lines), _wnid_of(_beside_truth(path)))
    return _by_name(path, rows)


def _of_devkit(path: Path) -> tuple[bytes, bytes]:
    with tarfile.open(path) as archive:
        found = {Path(member.name).name: member for member in archive if member.isreg()}
        files = [archive.extractfile(found[name]) for name in (GROUND_TRUTH, META) if name in found]
        contents = [file.read() for file in files if file]
    if len(contents) != 2:
        raise DataError(f"{path} does not hold {GROUND_TRUTH} and {META}: it is not the devkit")
    return contents[0], contents[1]


def _beside_truth(path: Path) -> bytes:
    meta = path.with_name(META)
    if not meta.exists():
        raise DataError(
            f"the numbers in {path} are ILSVRC2012_IDs, not class indices: put the devkit's {META} beside it, or give"
            " the devkit itself as --labels"
        )
    return meta.read_bytes()


def _wnid_of(meta: bytes) -> dict[int, str]:
    """WordNet id by ILSVRC2012_ID, from the devkit's `synsets`, of which the first 1,000 are the classes."""
    from scipy.io import loadmat  # noqa: PLC0415

    try:
        synsets: Any = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        found = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    except Exception as error:  # a reader of a binary format may raise anything on damaged bytes
        raise DataError(f"{META} is damaged, or is not the devkit's ({error}): unpack it again") from error
    return {number: wnid for number, wnid in found.items() if number <= CLASSES}


def _by_id(truth: str, wnid_of: dict[int, str]) -> Labels:
    numbers = truth.split()
    try:
        wnids = [wnid_of[int(number)] for number in numbers]
        return {validation_name(place): class_of()[wnid] for place, wnid in enumerate(wnids, start=1)}
    except (KeyError, ValueError) as error:
        raise DataError(f"{GROUND_TRUTH} and {META} do not fit each other: {error} is no ILSVRC2012_ID") from error


def _by_name(path: Path, rows: list[list[str]]) -> Labels:
    """A row per image: its WordNet id, or its name and its WordNet id or index, or Kaggle's boxes."""
    if rows[0][0] == "ImageId":
        rows = rows[1:]
    labels = {}
    for place, row in enumerate(rows, start=1):
        name = row[0] if len(row) > 1 else validation_name(place)
        canonical = VAL.canonical(name if "." in name else f"{name}.JPEG")
        index = _index(row[1] if len(row) > 1 else row[0])
        if canonical is None or index is None:
            raise DataError(f"line {place} of {path} is '{' '.join(row)[:60]}': --labels takes {TAKES}")
        labels[canonical[0]] = index
    return labels


def _index(word: str) -> int | None:
    if WNID.fullmatch(word):
        return class_of().get(word)
    return int(word) if word.isdecimal() and int(word) < CLASSES else None
