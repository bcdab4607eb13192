"""Parquet shards as the hub keeps ImageNet: columns `image` (struct of `bytes` and `path`) and `label`."""

import functools
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from tokenmark.data.imagenet import CLASSES, Collection
from tokenmark.data.sources.base import Entry, Source, entry
from tokenmark.errors import DataError

SPLITS = ("train", "val", "validation", "test")


def shards_of(path: Path) -> list[Path]:
    """The parquet files in a folder or in its `data` folder, sorted by name; a single file stands for itself."""
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    return sorted([*path.glob("*.parquet"), *path.glob("data/*.parquet")], key=lambda shard: shard.name)


def open_parquet(path: Path, collection: Collection) -> Source:
    """The pictures of all shards of this split, row group by row group.

    Raises:
        DataError: pyarrow is missing, there is no shard of this split, or a shard is damaged or of another layout.
    """
    parquet = _pyarrow()
    shards = _of_split(path, collection)
    parts: list[tuple[Entry, ...]] = []
    for shard in shards:
        try:
            with parquet.ParquetFile(shard) as file:
                _check_layout(shard, file)
                parts += [tuple(_group(collection, shard, file, group)) for group in range(file.num_row_groups)]
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            raise DataError(f"{shard} is no whole parquet file ({error}): get it again") from error
    named = any(entry.known for part in parts for entry in part)
    return Source("parquet shards", tuple(parts), _read, named=named)


def _pyarrow() -> ModuleType:
    try:
        import pyarrow.parquet  # noqa: PLC0415  an extra
    except ImportError as error:
        raise DataError("reading parquet needs pyarrow: pip install 'tokenmark[parquet]'") from error
    return cast("ModuleType", pyarrow.parquet)


def _of_split(path: Path, collection: Collection) -> list[Path]:
    shards = shards_of(path)
    by_split = [shard for shard in shards if shard.name.startswith(SPLITS)]
    if path.is_file() or not by_split:
        return shards
    ours = [shard for shard in by_split if shard.name.startswith(collection.folders)]
    if not ours:
        raise DataError(
            f"{path} holds shards such as {by_split[0].name}, but none whose name begins with"
            f" {' or '.join(collection.folders)}"
        )
    return ours


def _check_layout(shard: Path, file: Any) -> None:
    columns = {column.path for column in map(file.schema.column, range(len(file.schema)))}
    missing = {"image.bytes", "label"} - columns
    if missing:
        raise DataError(
            f"{shard} has no column {' and '.join(sorted(missing))} (it has {', '.join(sorted(columns))}):"
            " the hub's layout is image.bytes, image.path and label"
        )


def _group(collection: Collection, shard: Path, file: Any, group: int) -> Iterator[Entry]:
    table = file.read_row_group(group, columns=["image.path", "label"]).to_pydict()
    labels = table["label"]
    images = table.get("image") or [None] * len(labels)
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        if label is None or not 0 <= label < CLASSES:
            raise DataError(
                f"{shard} holds the label {label}, and classes are 0 to 999: it is the test split, or others"
            )
        name = (image or {}).get("path")
        place = (str(shard), group, row)
        found = entry(collection, name, place, label) if name else None
        yield found or Entry(f"{shard.name}:{group}:{row}", label, place, known=False)


@functools.lru_cache(maxsize=1)
def _images_of(shard: str, group: int) -> Any:
    with _pyarrow().ParquetFile(shard) as file:
        return file.read_row_group(group, columns=["image.bytes"])["image"]


def _read(place: tuple[str, int, int]) -> bytes:
    shard, group, row = place
    try:
        data = _images_of(shard, group)[row]["bytes"].as_py()
    except ValueError as error:  # as in opening
        raise OSError(str(error)) from error
    return bytes(data or b"")
