"""The results folder: finished records, unfinished runs, and the lock that keeps two runs apart.

records/<suite>/<method>/<run>.json    finished, one file per run, with its pictures beside it
.partial/<run>/                        what a killed run goes on from
.lock, .site                           who is writing; whose records these are
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import filelock

from tokenmark.errors import RecordError, StorageError
from tokenmark.files import sha256_of, write_atomic, writing
from tokenmark.records import Record, parse
from tokenmark.spec import RunSpec


class Results:
    """One results folder. Reading needs no lock; writing records happens inside `locked()`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.records = root / "records"

    def path(self, spec: RunSpec) -> Path:
        """Where the record of this run lies, or will lie."""
        return self.records / spec.suite / spec.method / f"{spec.run}.json"

    def partial(self, spec: RunSpec) -> Path:
        """The folder for what an unfinished run has so far."""
        return self.root / ".partial" / spec.run

    def find(self, spec: RunSpec) -> Record | None:
        """The finished record of this run, or None.

        Raises:
            RecordError: there is one, but it was altered or truncated.
        """
        path = self.path(spec)
        return self.read(path) if path.exists() else None

    def read(self, path: Path) -> Record:
        """Read one record and check its seal, its name and its pictures.

        Raises:
            RecordError: it cannot be read, or was altered.
        """
        try:
            record = parse(path.read_bytes(), str(path))
        except OSError as error:
            raise RecordError(f"record {path} cannot be read: {error.strerror}") from error
        if path.stem != record.run:
            raise RecordError(f"record {path} does not have the name of its run, {record.run}.json: rename it")
        for picture in record.pictures.values():
            place = path.parent / Path(picture.file).name
            if not place.is_file() or sha256_of(place) != picture.sha256:
                raise RecordError(f"picture {place} of record {record.run[:12]} is missing or altered: restore it")
        return record

    def paths(self) -> list[Path]:
        """The files of all records, sorted."""
        return sorted(self.records.glob("*/*/*.json"))

    def all(self) -> list[Record]:
        """All records, in the order of their paths.

        Raises:
            RecordError: one of them cannot be read or was altered.
        """
        return [self.read(path) for path in self.paths()]

    def write(self, record: Record, pictures: dict[str, bytes]) -> Path:
        """Write pictures, then the record, then forget the partial state.

        Raises:
            StorageError: they cannot be written; the partial state stays.
        """
        path = self.path(record.spec)
        for name, data in pictures.items():
            write_atomic(path.parent / record.pictures[name].file, data)
        write_atomic(path, record.to_json())
        self.forget(record.spec)
        return path

    def forget(self, spec: RunSpec) -> None:
        """Remove what an unfinished run left: its state, and files that a kill left half written."""
        shutil.rmtree(self.partial(spec), ignore_errors=True)
        for left in self.path(spec).parent.glob(f".{spec.run}.*.tmp"):
            with contextlib.suppress(OSError):
                left.unlink()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for writing; the lock goes with the process, however it ends.

        Raises:
            StorageError: another run holds it, or the folder cannot be written.
        """
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.root / ".lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise StorageError(
                f"another run is writing to {self.root}: wait for it to end, or choose another folder with --results"
            ) from error
        except OSError as error:
            raise StorageError(
                f"cannot write to {self.root}: {error.strerror or error}; choose another folder with --results"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def site(self) -> str:
        """Whose records these are: `TOKENMARK_SITE`, or a name drawn once for this folder."""
        named = os.environ.get("TOKENMARK_SITE")
        if named:
            return named
        path = self.root / ".site"
        if not path.exists():
            write_atomic(path, f"site-{secrets.token_hex(4)}\n".encode())
        return path.read_text(encoding="utf-8").strip()
