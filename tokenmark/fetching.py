"""Download published weights: a file gets its name only after its SHA-256 was found to be the pinned one."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from tokenmark import hub, urls
from tokenmark.contracts import Release
from tokenmark.errors import WeightsError
from tokenmark.files import sha256_of
from tokenmark.pins import Pin
from tokenmark.weights import Published


def fetch(item: Published, pin: Pin, path: Path) -> None:
    """Download `item` to `path`, unless another process does so at this moment: then wait for that.

    Raises:
        WeightsError: it cannot be had, cannot be written, or its bytes are not the pinned ones; `path` is not there
            then.
    """
    beside = path.with_name(f".{path.name}.fetching")
    with _writing(item, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if not path.is_file():
                came = _download(item, pin, beside)
                _check(item, pin, came)
                came.replace(path)
                shutil.rmtree(beside)


def _download(item: Published, pin: Pin, folder: Path) -> Path:
    if isinstance(item, Release):
        shutil.rmtree(folder, ignore_errors=True)  # what a killed process left there, the hub's library never takes up
        folder.mkdir()
        return hub.download(item, pin, folder)
    folder.mkdir(exist_ok=True)
    urls.download(item.url, folder / item.name)
    return folder / item.name


def _check(item: Published, pin: Pin, came: Path) -> None:
    digest = sha256_of(came)
    if digest != pin.sha256:
        came.unlink()
        raise WeightsError(
            f"{item.key} is pinned to SHA-256 {pin.sha256}, but what came has {digest}: it was deleted;"
            " do not trust that source before you know why"
        )


@contextlib.contextmanager
def _writing(item: Published, path: Path) -> Iterator[None]:
    """Trouble with the disk is trouble with these weights alone: other runs may go on."""
    try:
        yield
    except OSError as error:
        raise WeightsError(
            f"{item.key} cannot be written to {path.parent}: {error.strerror or error}; make room, or name another"
            " folder in TOKENMARK_WEIGHTS, and run the same command again"
        ) from error
