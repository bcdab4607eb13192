"""Run what is planned: skip what is done, go on with what was stopped, and let no job harm another."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import torch

from tokenmark import memory, protocols, provenance
from tokenmark.checkpoint import Checkpoint, state_name
from tokenmark.errors import MissingError, StorageError, TokenmarkError
from tokenmark.files import sha256_bytes
from tokenmark.number_types import number_types
from tokenmark.plan import Planned
from tokenmark.records import Picture, Record
from tokenmark.spec import RunSpec
from tokenmark.store import Results
from tokenmark.tasks import TASKS
from tokenmark.tasks.base import Context, Outcome, Session, gathered, joined, scatter
from tokenmark.world import LostError, World


class Watcher(Protocol):
    """Who is told how a suite goes."""

    def start(self, title: str, total: int, done: int) -> None:
        """A run begins, or goes on at image `done` of `total`."""
        ...

    def advance(self, done: int) -> None:
        """So many images of the run are done."""
        ...

    def phase(self, name: str) -> None:
        """The run is past its images and does something else."""
        ...

    def finished(self, record: Record) -> None:
        """A record was written."""
        ...

    def present(self, record: Record) -> None:
        """A run needs nothing: its record is there."""
        ...

    def missing(self, title: str, error: MissingError) -> None:
        """A run needs something that is not here."""
        ...

    def failed(self, title: str, error: Exception) -> None:
        """A run ended without a record."""
        ...

    def note(self, text: str) -> None:
        """Something that the reader should know."""
        ...


@dataclass(slots=True)
class Summary:
    """How a suite ended."""

    records: list[Record] = field(default_factory=list)
    """All records of the suite, new and old, in its order."""
    measured: int = 0
    present: int = 0
    missing: list[tuple[str, MissingError]] = field(default_factory=list)
    """Runs that need what others publish and is not here."""
    failures: list[tuple[str, Exception]] = field(default_factory=list)

    def add(self, other: "Summary") -> None:
        """Take in what another suite ended with."""
        self.records += other.records
        self.measured += other.measured
        self.present += other.present
        self.missing += other.missing
        self.failures += other.failures


def run_all(
    planned: Sequence[Planned],
    results: Results,
    context: Context,
    watcher: Watcher,
    checkpoint_seconds: float = 10.0,
    world: World | None = None,
) -> Summary:
    """Run every planned run that has no record yet. The results folder must be locked by rank 0's caller.

    Raises:
        LostError: another process of the run is gone.
        StorageError: the results folder cannot be written: nothing after it could be kept either.
        KeyboardInterrupt: the stopped run goes on from its last checkpoint.
    """
    summary = Summary()
    world = world or World()
    for item in sorted(planned, key=lambda item: item.spec is not None):  # what cannot start is told first
        try:
            if item.spec is None:
                raise item.problem or TokenmarkError(f"{item.title} cannot be planned")
            spec = item.spec
            record = world.lead(lambda spec=spec: results.find(spec))  # type: ignore[misc]
            if record is None:
                record = _run(spec, item.warnings, results, context, watcher, checkpoint_seconds, world)
                summary.measured += 1
                watcher.finished(record)
            else:
                results.forget(spec)  # where a kill came between the record and this
                _again(spec, context, watcher, world)
                summary.present += 1
                watcher.present(record)
            summary.records.append(record)
        except (StorageError, LostError):
            raise
        except MissingError as error:
            summary.missing.append((item.title, error))
            watcher.missing(item.title, error)
        except Exception as error:  # noqa: BLE001  one failing job must not stop the others
            summary.failures.append((item.title, error))
            watcher.failed(item.title, error)
    return summary


def _again(spec: RunSpec, context: Context, watcher: Watcher, world: World) -> None:
    """Do what a run that has its record was asked for beside it."""
    present = TASKS[spec.task].present
    if present is None:
        return
    begun = False

    def tell(done: int, total: int) -> None:
        nonlocal begun
        if not begun:
            watcher.start(spec.title, total, done)
        begun = True
        watcher.advance(done)

    with number_types(protocols.get(spec.protocol)):
        world.lead(lambda: present(spec, context, tell))


def _run(
    spec: RunSpec,
    planned: Sequence[str],
    results: Results,
    context: Context,
    watcher: Watcher,
    checkpoint_seconds: float,
    world: World,
) -> Record:
    clock = _Clock()
    torch.manual_seed(spec.seed)
    memory.reset_peak(context.device)
    with number_types(protocols.get(spec.protocol)):
        session = world.together(lambda: TASKS[spec.task].open(spec, context))
        clock.mark("open")
        start, stop = world.shard(session.total, spec.batch_size)
        state = Checkpoint(results.partial(spec) / state_name(world), checkpoint_seconds)
        progress = _Progress(session, state, spec.batch_size, watcher, start, stop)
        watcher.start(spec.title, stop - start, progress.done - start)
        world.together(progress.run)
        warnings = [*planned, *_meet(session, progress, world)]
        clock.mark("images", state.seconds_before)
        return world.lead(lambda: _record(spec, session, warnings, results, context, watcher, clock))


def _meet(session: Session, progress: "_Progress", world: World) -> list[str]:
    """Bring what all processes summed together in rank 0, in the order of images; gives everybody's warnings."""
    shares = world.collect((gathered(session.measures), progress.warnings))
    if world.size > 1 and shares is not None:
        scatter(session.measures, joined(session.measures, [state for state, _ in shares]))
    return [warning for _, warnings in shares or () for warning in warnings]


def _record(
    spec: RunSpec,
    session: Session,
    warnings: Sequence[str],
    results: Results,
    context: Context,
    watcher: Watcher,
    clock: "_Clock",
) -> Record:
    """Compute the values and write them down."""
    environment = provenance.environment(context.device)
    outcome = session.finish(watcher.phase)
    clock.mark("finish")
    record = Record(
        run=spec.run,
        spec=spec,
        values=tuple(outcome.values),
        details=outcome.details,
        environment=environment,
        started=clock.started,
        durations=clock.durations,
        peak_memory_bytes=memory.peak(context.device),
        warnings=(*warnings, *outcome.warnings, *_comparability(spec)),
        pictures=_pictures(spec, outcome),
    ).sealed()
    results.write(record, {name: data for name, (data, _) in outcome.pictures.items()})
    return record


def _comparability(spec: RunSpec) -> list[str]:
    """What keeps a run's numbers from standing beside those of its protocol."""
    wanted = protocols.get(spec.protocol).samples
    if wanted is None or spec.samples in {0, wanted}:
        return []
    return [f"not comparable: of {spec.samples:,} images, where protocol {spec.protocol} takes {wanted:,}"]


class _Clock:
    """When a run began, and how long each of its phases took."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.durations: dict[str, float] = {}
        self._last = time.perf_counter()

    def mark(self, phase: str, before: float = 0.0) -> None:
        """A phase ends here, which a stopped run had worked on for `before` seconds."""
        now = time.perf_counter()
        self.durations[phase] = round(now - self._last + before, 3)
        self._last = now


def _pictures(spec: RunSpec, outcome: Outcome) -> dict[str, Picture]:
    return {
        name: Picture(file=f"{spec.run}.{name}.png", sha256=sha256_bytes(data), caption=caption)
        for name, (data, caption) in outcome.pictures.items()
    }


class _Progress:
    """The loop over images: in batches, halved where memory runs out, saved as it goes.

    A step that fails, or is interrupted, may have reached some measures and not others: what it left is never saved.
    """

    def __init__(
        self, session: Session, state: Checkpoint, batch: int, watcher: Watcher, start: int, stop: int
    ) -> None:
        self._session, self._state, self._batch, self._watcher = session, state, batch, watcher
        self._start, self._stop = start, stop
        self.warnings: list[str] = []
        self._empty = gathered(session.measures)
        done, arrays = state.load()
        self.done = done or start
        if done:
            scatter(session.measures, arrays)

    def run(self) -> None:
        while self.done < self._stop:
            self._step()
            self._watcher.advance(self.done - self._start)
            if self._state.due():
                self._save()

    def _step(self) -> None:
        stop = min(self.done + self._batch, self._stop)
        try:
            self._session.step(self.done, stop)
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error):
                raise
            if self._batch == 1:
                raise TokenmarkError(f"out of memory even with one image at a time: {error}") from error
            self._batch //= 2
            text = f"out of memory: batch halved to {self._batch}"
            self.warnings.append(text)
            self._watcher.note(text)
            self._go_back()
            memory.release()
        else:
            self.done = stop

    def _go_back(self) -> None:
        """To the last checkpoint, or to the beginning."""
        done, arrays = self._state.again()
        self.done = done or self._start
        scatter(self._session.measures, arrays if done else self._empty)

    def _save(self) -> None:
        self._state.save(self.done, gathered(self._session.measures))
