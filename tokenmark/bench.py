"""The main job, end to end: plan a suite, run it, track it, show it."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from rich.console import Console

from tokenmark import display, plan, runner, suites, tables
from tokenmark.errors import MissingDataError, TokenmarkError, UnknownNameError
from tokenmark.kept import Keep
from tokenmark.leaderboard import site as leaderboard_site
from tokenmark.records import Record
from tokenmark.shelf import Shelf
from tokenmark.store import Results
from tokenmark.tasks.base import Context
from tokenmark.tracking import Tracker, TrackingError, uri
from tokenmark.world import World


def device_of(name: str) -> torch.device:
    """The device called `name`; `auto` is a GPU if there is one.

    Raises:
        TokenmarkError: there is no such device.
    """
    if name == "auto":
        # of several processes on one machine each takes a GPU of its own
        return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise TokenmarkError(f"device '{name}' cannot be used: {reason}; try --device cpu") from error
    return device


class Preparer(Protocol):
    """What the user has, from which data sets can be prepared."""

    def prepare(self, name: str, folder: Path, limit: int | None) -> None:
        """Make the data set called `name` in `folder`, or so many images of it."""
        ...


class Bench:
    """One results folder, one data folder, one device."""

    def __init__(
        self,
        results_folder: Path,
        data_folder: Path,
        device: str,
        checkpoint_seconds: float,
        shelf: Shelf | None = None,
        source: Preparer | None = None,
        keep: Keep | None = None,
    ) -> None:
        self._results = Results(results_folder)
        self._source = source
        self._context = Context(device_of(device), data_folder, shelf or Shelf(), keep)
        self._checkpoint_seconds = checkpoint_seconds
        self._world = World.join()
        self._display = display.Display(None if self._world.leads else Console(quiet=True))

    def run(
        self,
        names: Sequence[str],
        suites_folder: Path,
        methods: tuple[str, ...],
        *,
        limit: int | None,
        page: bool,
        runs: tuple[str, ...] = (),
    ) -> int:
        """Run suites, or of them the runs named in `runs` (see `plan.chosen`).

        Gives the exit status: 0 if all that has what it needs is measured, 2 otherwise.
        """
        loaded = {path.stem: suites.load(path) for path in (suites.find(name, suites_folder) for name in names)}
        known = {job.method for suite in loaded.values() for job in suite.jobs}
        for method in methods:
            if method not in known:
                raise UnknownNameError(f"method in suite {' and '.join(loaded)}", method, known)
        return self.measure(loaded, methods, limit=limit, page=page, runs=runs)

    def measure(
        self,
        loaded: Mapping[str, suites.Suite],
        methods: tuple[str, ...] = (),
        *,
        limit: int | None = None,
        page: bool,
        runs: tuple[str, ...] = (),
    ) -> int:
        """Measure suites that were read or made, by the names that their records take; gives the status, as `run`."""
        summary = runner.Summary()
        with self._locked():
            site = self._world.lead(self._results.site)
            for name, suite in loaded.items():
                planned = plan.chosen(self._planned(suite, name, site, methods, limit), runs)
                with self._display.suite(suite.title, len(planned)):
                    summary.add(
                        runner.run_all(
                            planned, self._results, self._context, self._display, self._checkpoint_seconds, self._world
                        )
                    )
            if self._world.leads:
                self._track(summary.records)
        self._world.leave()
        if self._world.leads:
            self._show(summary, page=page)
        return 2 if summary.failures or (summary.missing and not summary.records) else 0

    def _planned(
        self, suite: suites.Suite, name: str, site: str, methods: tuple[str, ...], limit: int | None
    ) -> list[plan.Planned]:
        """The runs of a suite, once the data that they lack were made from what the user has."""

        def planned() -> list[plan.Planned]:
            return plan.plan(suite, name, self._context, site, only=methods, limit=limit)

        if self._world.size > 1:
            self._world.lead(lambda: len(planned()))  # what is downloaded or made comes before others look for it
        first = planned()
        wanted = {error.name for each in first if isinstance(error := each.problem, MissingDataError)} - {None}
        if self._source is None or not wanted:
            return first
        for data_set in sorted(map(str, wanted)):
            self._world.lead(lambda data_set=data_set: self._source.prepare(data_set, self._context.data, limit))  # type: ignore[misc]
        return planned()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the results folder, for all processes of this run."""
        with contextlib.ExitStack() as stack:
            self._world.lead(lambda: stack.enter_context(self._results.locked()))
            yield

    def _show(self, summary: runner.Summary, *, page: bool) -> None:
        tables.print_tracks(summary.records)
        self._display.summary(summary)
        if page and summary.records:
            written = leaderboard_site.write(self._results, self._results.root / "site")
            self._display.places(written, uri(self._results))

    def _track(self, records: list[Record]) -> None:
        if not records:
            return
        try:
            tracker = Tracker(self._results)
            new = sum(tracker.log(record) for record in records)
            tracker.log_curves(records)
        except TrackingError as error:
            self._display.note(str(error))
        else:
            self._display.note(f"MLflow: {new} new runs, {len(records) - new} were there")
