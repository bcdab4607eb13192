"""Decoding and cropping in many processes. What runs in them is light to import: no torch."""

import contextlib
import hashlib
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tokenmark.data.crops import CROPS
from tokenmark.data.decode import UnreadableError, decode
from tokenmark.data.partial import Done, Rows
from tokenmark.data.sources import Place
from tokenmark.errors import TokenmarkError

Part = tuple[tuple[int, Place], ...]
"""Indices of rows, with the places of their files."""


class Failed(NamedTuple):
    """A file that gave no row."""

    row: int
    reason: str


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker needs to turn files into rows."""

    read: Callable[[Place], bytes]
    crop: str
    side: int
    rows: Rows


def run(job: Job, parts: Iterable[Part], workers: int) -> Generator[list[Done | Failed], None, None]:
    """Do all parts in `workers` processes; gives the results of a part as soon as it is done.

    Raises:
        OSError: a row cannot be written.
        TokenmarkError: a worker was killed.
    """
    # spawned, not forked: a fork of a process with threads may hang, and would hold the caller's lock
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin)
    try:
        with _uninterrupted():
            futures = [pool.submit(work, job, part) for part in parts]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise TokenmarkError(
            "a worker process was killed, perhaps for want of memory: run the same command again, with fewer --workers;"
            " it goes on from here"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def work(job: Job, part: Part) -> list[Done | Failed]:
    """Turn files into rows of the array."""
    with Path(job.rows.path).open("r+b") as file:
        return [_row(job, file, index, place) for index, place in part]


def _row(job: Job, file: BinaryIO, index: int, place: Place) -> Done | Failed:
    try:
        data = job.read(place)
        image, kind = decode(data)
        pixels = CROPS[job.crop].apply(image, job.side)
    except UnreadableError as error:
        return Failed(index, str(error))
    except OSError as error:
        return Failed(index, f"it cannot be read ({error.strerror or error})")
    except MemoryError:
        return Failed(index, "memory ran out")
    return Done(index, hashlib.sha256(data).hexdigest(), kind, job.rows.write(file, index, pixels))


def _begin() -> None:
    """Prepare a worker: ctrl-C is the parent's business, and a worker ends with its parent, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")  # Pillow's remarks on odd files; what cannot be read is an error
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Keep ctrl-C waiting, so that no worker meets it before it is told to ignore it: they inherit this."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
