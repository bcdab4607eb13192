"""The main job, end to end: plan a suite, run it, track it, show it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console

from tokenmark import display, plan, runner, suites, tables
from tokenmark.errors import TokenmarkError, UnknownNameError
from tokenmark.leaderboard import page as leaderboard_page
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


class Bench:
    """One results folder, one data folder, one device."""

    def __init__(
        self,
        results_folder: Path,
        data_folder: Path,
        device: str,
        checkpoint_seconds: float,
        shelf: Shelf | None = None,
    ) -> None:
        self._results = Results(results_folder)
        self._context = Context(device_of(device), data_folder, shelf or Shelf())
        self._checkpoint_seconds = checkpoint_seconds
        self._world = World.join()
        self._display = display.Display(None if self._world.leads else Console(quiet=True))

    def run(self, suite: str, suites_folder: Path, methods: tuple[str, ...], *, page: bool) -> int:
        """Run a suite; gives the exit status: 0 if all is measured, 2 if something could not be."""
        path = suites.find(suite, suites_folder)
        loaded = suites.load(path)
        known = {job.method for job in loaded.jobs}
        for method in methods:
            if method not in known:
                raise UnknownNameError(f"method in suite {path.stem}", method, known)
        return self.measure(loaded, path.stem, methods, page=page)

    def measure(self, suite: suites.Suite, name: str, methods: tuple[str, ...] = (), *, page: bool) -> int:
        """Measure a suite that was read or made, under a name for its records; gives the exit status, as `run`."""
        with self._locked():
            site = self._world.lead(self._results.site)
            planned = plan.plan(suite, name, self._context, site, only=methods)
            with self._display.suite(suite.title, len(planned)):
                summary = runner.run_all(
                    planned, self._results, self._context, self._display, self._checkpoint_seconds, self._world
                )
            if self._world.leads:
                self._track(summary.records)
        self._world.leave()
        if self._world.leads:
            self._show(summary, page=page)
        return 2 if summary.failures else 0

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
            written = leaderboard_page.write(self._results, self._results.root / "site" / "index.html")
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
