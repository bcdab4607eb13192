"""What `--data` names: a folder of prepared sets, or ImageNet as somebody has it, from which they are prepared."""

import os
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tokenmark.cli.bar import Bar
from tokenmark.data import catalog, sources
from tokenmark.data.imagenet import COLLECTIONS
from tokenmark.data.prepare import Request, prepare
from tokenmark.errors import DataError


@dataclass(frozen=True, slots=True)
class ImageNetSource:
    """A tar or folder of pictures, as `tokenmark prepare --source` takes it."""

    path: Path
    console: Console

    def prepare(self, name: str, folder: Path, limit: int | None) -> None:
        """Prepare the set called `name` in `folder`; with a limit only so many images, classes taking turns.

        Raises:
            DataError: the source is not what was published, or holds files that cannot be read.
            StorageError: the disk is too small, cannot be written, or another run prepares the same.
        """
        collection, side, crop = catalog.parts(name)
        bar = Bar(self.console)
        bar.phase(f"preparing {name} from {self.path}, into {folder}")
        request = Request(
            collection=COLLECTIONS[collection],
            source=self.path,
            data=folder,
            side=side,
            crop=crop,
            workers=cores(),
            limit=limit,
            allow_subset=limit is not None,
        )
        with bar.shown():
            prepare(request, bar)


def places(data: Path, prepared: Path, limit: int | None) -> tuple[Path, Path | None]:
    """Where prepared sets lie or will lie, and the source from which missing ones are made, if `data` is one.

    Sets of a limited number of images get a folder of their own, so that no part has the place of the whole.
    """
    try:
        sources.detect(data, COLLECTIONS["imagenet-val"])
    except DataError:
        return data, None
    return (prepared / f"first-{limit}" if limit is not None else prepared), data


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
