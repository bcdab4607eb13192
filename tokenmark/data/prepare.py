"""Prepare ImageNet: check what is there, decode and crop it with all cores, publish it whole or not at all."""

import contextlib
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import filelock
import numpy as np

from tokenmark.data import decode, labels, pool, prepared
from tokenmark.data.check import Checked, Findings, Item, balanced, check
from tokenmark.data.imagenet import CLASSES, Collection, prepared_name
from tokenmark.data.partial import Done, Partial
from tokenmark.data.prepared import Manifest, Origin, Subset
from tokenmark.data.sources import Source, open_source
from tokenmark.errors import DataError, StorageError
from tokenmark.files import sha256_text, write_atomic, writing

FILES, LEFT_OUT = "files.tsv", "left-out.txt"
SPARE = 64 << 20
"""Bytes beside the array: journal, labels, lists of files."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be prepared, from what, and where."""

    collection: Collection
    source: Path
    data: Path
    side: int = 256
    crop: str = "adm"
    labels: Path | None = None
    workers: int = 1
    limit: int | None = None
    allow_subset: bool = False

    @property
    def name(self) -> str:
        """The data set's name."""
        return prepared_name(self.collection.name, self.side, self.crop)


class Watcher(Protocol):
    """Who is told how it goes."""

    def phase(self, text: str) -> None:
        """Something begins that is not image by image."""
        ...

    def start(self, total: int, done: int) -> None:
        """Images are about to be decoded; so many are done from an earlier run."""
        ...

    def advance(self, done: int) -> None:
        """So many images are done."""
        ...

    def note(self, text: str) -> None:
        """Something that the reader should know."""
        ...


def prepare(request: Request, watcher: Watcher) -> Manifest:
    """Prepare a data set, or go on with it; one that is there is checked and left alone.

    Raises:
        DataError: the source is not what was published, or holds files that cannot be read; all are listed in a
            report, and nothing is published.
        StorageError: the disk is too small, cannot be written, or another run prepares the same.
    """
    if request.limit is not None and not request.allow_subset:
        raise DataError(
            "--limit makes a subset, whose numbers compare with nobody's: add --allow-subset if that is what you want"
        )
    with _locked(request):
        partial = request.data / f".{request.name}.partial"
        if (request.data / request.name).exists():
            manifest = _present(request, watcher)
        else:
            manifest = _prepare(request, partial, watcher)
        shutil.rmtree(partial, ignore_errors=True)
        return manifest


@contextlib.contextmanager
def _locked(request: Request) -> Iterator[None]:
    with writing(request.data):
        request.data.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(request.data / f".{request.name}.lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:  # an OSError, which is not about writing
            raise StorageError(
                f"another run is preparing {request.name} in {request.data}: wait for it to end, or choose another"
                " folder with --data"
            ) from error
    try:
        yield
    finally:
        lock.release()


def _present(request: Request, watcher: Watcher) -> Manifest:
    place = request.data / request.name
    watcher.phase("checking what is there")
    manifest = prepared.load(place / request.collection.split).manifest
    if manifest.subset is not None and (not request.allow_subset or manifest.subset.limit != request.limit):
        raise DataError(f"{place} holds {_extent(manifest)}: delete it to prepare something else")
    watcher.note(f"{place} is there already, and unaltered ({_extent(manifest)})")
    return manifest


def _extent(manifest: Manifest) -> str:
    return "the whole set" if manifest.subset is None else f"a subset, {manifest.shape[0]:,} of {manifest.subset.of:,}"


def _prepare(request: Request, folder: Path, watcher: Watcher) -> Manifest:
    watcher.phase(f"looking through {request.source}")
    source = open_source(request.source, request.collection)
    checked = check(source, request.collection, _labels(request, source, watcher))
    _judge(request, checked)
    items = balanced(checked.entries, request.limit)
    shape = (len(items), request.side, request.side, 3)
    partial = Partial(folder, Path(request.collection.split, prepared.IMAGES), shape, _identity(request, items))
    watcher.phase("checking what an earlier run left" if folder.exists() else "making room")
    rows, done = partial.open()
    _check_space(partial, request.data)
    job = pool.Job(source.read, request.crop, request.side, rows)
    failed = _decode(job, source, items, partial, done, request.workers, watcher)
    findings = Findings()
    findings.add("unreadable", (f"{items[index].entry.name}: {reason}" for index, reason in sorted(failed.items())))
    _stop_for(request, findings, "holds files that cannot be used", "mend them and run the same command again")
    watcher.phase("writing the manifest")
    manifest = _seal(request, partial, source, checked, items, done)
    with writing(request.data):
        partial.published.replace(request.data / request.name)
        _report(request).unlink(missing_ok=True)
    return manifest


def _labels(request: Request, source: Source, watcher: Watcher) -> labels.Labels | None:
    """The labels that were given, or those beside a source that has none."""
    if request.collection.split != "val":
        if request.labels is not None:
            raise DataError(f"--labels is for validation images: those of {request.collection.name} are in their names")
        return None
    path = request.labels
    if path is None and any(entry.label is None for entry in source.entries if entry.known):
        path = labels.beside(request.source)
        if path is None:
            raise DataError(f"the pictures in {request.source} have no labels: give --labels {labels.TAKES}")
        watcher.note(f"labels are read from {path}")
    return None if path is None else labels.read(path)


def _judge(request: Request, checked: Checked) -> None:
    """Stop before anything is decoded, unless the source is whole or a subset is wanted."""
    mend = "mend the source and run the same command again"
    if not checked.entries:
        raise DataError(f"{request.source} holds no picture of the {request.collection.title}")
    _stop_for(request, checked.ambiguous, "is ambiguous", mend)
    if not request.allow_subset:
        subset = "add --allow-subset to go on with what there is, whose numbers compare with nobody's"
        what = f"is not the whole {request.collection.title}"
        _stop_for(request, checked.incomplete, what, f"{mend}, or {subset}")


def _report(request: Request) -> Path:
    return request.data / f"{request.name}.problems.txt"


def _stop_for(request: Request, findings: Findings, what: str, mend: str) -> None:
    if findings.by_kind:
        write_atomic(_report(request), findings.report().encode())
        raise DataError(
            f"{request.source} {what}: {findings.summary()}; all are listed in {_report(request)}; nothing was"
            f" published: {mend}"
        )


def _identity(request: Request, items: list[Item]) -> dict[str, object]:
    """What decides the content of every row: an earlier run with another one is not gone on with."""
    return {
        "version": 1,
        "name": request.name,
        "files": sha256_text("".join(f"{item.entry.name}\t{item.label}\n" for item in items)),
        "decoder": decode.versions(),
    }


def _check_space(partial: Partial, data: Path) -> None:
    needed, free = partial.missing_bytes() + SPARE, shutil.disk_usage(data).free
    if needed > free:
        raise StorageError(
            f"{needed / 1e9:.2f} GB are needed in {data}, and {free / 1e9:.2f} GB are free: make room, or choose"
            " another folder with --data"
        )


def _decode(
    job: pool.Job,
    source: Source,
    items: list[Item],
    partial: Partial,
    done: dict[int, Done],
    workers: int,
    watcher: Watcher,
) -> dict[int, str]:
    """Fill the rows that are not done; `done` grows. Gives the reason for every row that could not be filled."""
    index_of = {item.entry.name: item.index for item in items if item.index not in done}
    wanted = (
        tuple((index_of[entry.name], entry.place) for entry in part if entry.name in index_of) for part in source.parts
    )
    failed: dict[int, str] = {}
    watcher.start(len(items), len(done))
    with writing(partial.folder), contextlib.closing(pool.run(job, filter(None, wanted), workers)) as results:
        for part in results:
            new = [result for result in part if isinstance(result, Done)]
            failed |= {result.row: result.reason for result in part if not isinstance(result, Done)}
            partial.append(new)
            done |= {result.row: result for result in new}
            watcher.advance(len(done))
    return failed


def _seal(
    request: Request, partial: Partial, source: Source, checked: Checked, items: list[Item], done: dict[int, Done]
) -> Manifest:
    """Write what stands beside the array, the manifest last."""
    rows = [(item.entry.name, str(item.label), done[item.index].sha256, done[item.index].kind) for item in items]
    write_atomic(partial.place / FILES, "".join("\t".join(row) + "\n" for row in rows).encode())
    return prepared.seal(
        partial.place,
        np.array([item.label for item in items], np.int64),
        (len(items), request.side, request.side, 3),
        classes=CLASSES,
        name=request.name,
        split=request.collection.split,
        source=request.collection.title,
        crop=f"{request.crop}-{request.side}",
        subset=_subset(request, partial, checked, items),
        origin=Origin(
            kind=source.kind,
            files_sha256=sha256_text("".join(f"{name}\t{digest}\n" for name, _, digest, _ in rows)),
            found=dict(sorted(Counter(kind for *_, kind in rows).items())),
            decoder=decode.versions(),
        ),
    )


def _subset(request: Request, partial: Partial, checked: Checked, items: list[Item]) -> Subset | None:
    """What was left out, its names written beside the array; None for the whole."""
    whole = request.collection.images
    kinds = set(checked.incomplete.by_kind) - {"extra"}
    if len(items) == whole and not kinds:
        return None
    kept = {item.entry.name for item in items}
    over = sorted(entry.name for entry, _ in checked.entries if entry.name not in kept)
    text = "".join(f"{name}\tnot in the source\n" for name in checked.missing)
    text += "".join(f"{name}\tover the limit\n" for name in over)
    write_atomic(partial.place / LEFT_OUT, text.encode())
    return Subset(of=whole, left_out=max(whole - len(items), 0), limit=request.limit, left_out_sha256=sha256_text(text))
