"""Files that are either whole or not there: hashing and atomic writing."""

import contextlib
import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tokenmark.errors import StorageError


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(path: Path) -> str:
    """SHA-256 of a file's bytes, computed once a process while nothing touches it: runs of a suite read gigabytes."""
    facts = path.stat()
    return _digest_of(path.resolve(), facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)


@functools.lru_cache(maxsize=256)
def _digest_of(path: Path, *_facts: int) -> str:
    return sha256_of(path)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no blanks: one text per value, on every machine.

    Raises:
        ValueError: the value holds NaN or infinity, which JSON does not have.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_bytes(data: bytes) -> str:
    """SHA-256 of bytes, as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_text(text: str) -> str:
    """SHA-256 of a text in UTF-8, as 64 hex digits."""
    return sha256_bytes(text.encode())


def write_atomic(path: Path, data: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file so that a reader, or a kill at any moment, sees the old one or the whole new one.

    `data` is what is written, or a function that writes it: what is large need not be in memory twice.

    Raises:
        StorageError: the disk is full, the folder read-only, or the like; what was there stays as it was.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                _ = file.write(data) if isinstance(data, bytes) else data(file)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into one clear line."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; nothing that was finished is lost:"
            " make room or choose another folder, and run the same command again"
        ) from error
