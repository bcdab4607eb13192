"""A folder that is replaced as a whole: whoever looks, and whatever stops the writer, finds the old one or the new."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import filelock

from tokenmark.errors import StorageError
from tokenmark.files import writing
from tokenmark.leaderboard.view import File

OURS = frozenset({"index.html", "assets", "claims", "data", "methods", "papers", "records", "tracks", "vendor"})
"""What lies at the top of a site."""
MARK = b"<title>Tokenmark leaderboard</title>"
"""What the index of a site holds."""
SECONDS = 60.0
"""How long another build of the same site is waited for."""


def replace(out: Path, files: Iterable[File]) -> None:
    """Put `files` in place of all that is in the folder `out`.

    Raises:
        StorageError: `out` holds something else than a site, another build holds it, or it cannot be written; what
            was there stays as it was.
    """
    out = out.resolve()
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with _held(out):
            _recover(out)
            _check(out)
            new = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".new"))
            try:
                _fill(new, files)
                _swap(new, out)
            finally:
                shutil.rmtree(new, ignore_errors=True)


def _fill(folder: Path, files: Iterable[File]) -> None:
    for path, data in files:
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    folder.chmod(0o755)  # others may read it, whatever mkdtemp thinks


def _swap(new: Path, out: Path) -> None:
    """Put the old folder aside and the new one in its place; `_recover` mends what a kill in between leaves."""
    old = _aside(out)
    if out.exists():
        out.rename(old)
    try:
        new.rename(out)
    except BaseException:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _recover(out: Path) -> None:
    """Take back what an earlier build put aside and could not replace, and remove what it left half written."""
    old = _aside(out)
    if old.exists() and not out.exists():
        old.rename(out)
    for left in (old, *out.parent.glob(f".{out.name}.*.new")):
        shutil.rmtree(left, ignore_errors=True)


def _aside(out: Path) -> Path:
    return out.with_name(f".{out.name}.old")


def _check(out: Path) -> None:
    """Nobody's files are thrown away because a folder was named by mistake."""
    if not out.exists():
        return
    names = {place.name for place in out.iterdir()}
    index = out / "index.html"
    if others := sorted(names - OURS):
        raise StorageError(f"{out} holds other things than a leaderboard ({others[0]}): choose another with --out")
    if names and not (index.is_file() and MARK in index.read_bytes()):
        raise StorageError(f"{out} holds other things than a leaderboard: choose another with --out")


@contextlib.contextmanager
def _held(out: Path) -> Iterator[None]:
    lock = filelock.FileLock(out.with_name(f".{out.name}.lock"))
    try:
        lock.acquire(timeout=SECONDS)
    except filelock.Timeout as error:
        raise StorageError(f"another process is writing {out}: wait for it to end, then try again") from error
    try:
        yield
    finally:
        lock.release()
