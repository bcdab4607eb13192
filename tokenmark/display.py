"""How a run looks in a terminal: progress with rates and time left, and a line for everything that ends."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from tokenmark.errors import MissingError, TokenmarkError
from tokenmark.records import Record
from tokenmark.terminal import console, time_left

if TYPE_CHECKING:
    from tokenmark.runner import Summary

HEADLINES = {
    "reconstruction": ("rfid", "psnr"),
    "generation": ("gfid", "class_accuracy"),
    "classification": ("top1", "images_per_second"),
    "structure": ("parameters", "macs", "bits_per_image"),
    "sampling": ("images_per_second", "compiled_images_per_second"),
    "tokenization": ("encode_images_per_second", "decode_images_per_second"),
}


def reason(error: Exception) -> str:
    """An error in one line; of one that nobody foresaw, its kind too."""
    text = " ".join(str(error).split())
    if isinstance(error, TokenmarkError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def opening(tracking: str) -> str:
    """The command that opens MLflow's page on a store of runs, or the address of a server that is up already."""
    if tracking == f"sqlite:///{Path('results/mlflow.db').resolve()}":
        return "nox -s ui"
    return f"mlflow ui --backend-store-uri {tracking}" if tracking.startswith("sqlite:") else tracking


class Display:
    """A `Watcher` that shows two bars (the suite's runs, and the images of the one under way) and writes a line each.

    Without a terminal there are no bars, only lines, each with how far the suite is and the time left.
    """

    def __init__(self, to: Console | None = None) -> None:
        self._console = to or console()
        self._progress: Progress | None = None
        self._suite_bar: TaskID | None = None
        self._run_bar: TaskID | None = None
        self._runs = self._ended = self._measured = 0
        self._begun = self._run_begun = time.perf_counter()
        self._first = self._total = 0
        self._noted: set[str] = set()

    @contextlib.contextmanager
    def suite(self, title: str, runs: int) -> Iterator[None]:
        """Show the bars while a suite runs."""
        self._console.rule(f"[bold]{escape(title)}")
        self._runs, self._ended, self._begun = runs, 0, time.perf_counter()
        columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn())
        with Progress(
            *columns, TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), console=self._console, transient=True
        ) as self._progress:
            self._suite_bar = self._progress.add_task("runs", total=runs, rate="")
            self._run_bar = self._progress.add_task("", total=None, rate="", visible=False)
            yield
        self._progress = None

    def start(self, title: str, total: int, done: int) -> None:
        """A run begins, or goes on."""
        self._run_begun, self._first, self._total = time.perf_counter(), done, total
        if done:
            self.note(f"{title}: goes on at image {done} of {total}")
        self._update_run(description=escape(title[:44]), total=total or None, completed=done, rate="", visible=True)

    def advance(self, done: int) -> None:
        """So many images are done."""
        rate = (done - self._first) / max(time.perf_counter() - self._run_begun, 1e-9)
        left = self._left() or f"about {(self._total - done) / max(rate, 1e-9):.0f} s left of this run"
        self._update_run(completed=done, rate=f"{rate:.{0 if rate >= 10 else 2}f} images/s, {left}")

    def phase(self, name: str) -> None:
        """The run does something that is not image by image."""
        self._update_run(rate=", ".join(filter(None, (name, self._left()))))

    def finished(self, record: Record) -> None:
        """A record was written."""
        self._measured += 1
        names = HEADLINES[record.spec.task]
        found = [value for name in names if (value := record.value(name)) is not None]
        numbers = ", ".join(f"{value.name} {value.value:.4g}" for value in found)
        self._end("[green]measured[/]", record.spec.title, f"{numbers} ({sum(record.durations.values()):.1f} s)")
        for warning in record.warnings:
            if warning not in self._noted:  # what holds for a whole suite is said once; each record has it
                self._noted.add(warning)
                self.note(f"{record.spec.title}: {warning}")

    def present(self, record: Record) -> None:
        """A run needs nothing."""
        self._end("[dim]already measured[/]", record.spec.title, f"record {record.run[:12]}")

    def missing(self, title: str, error: MissingError) -> None:
        """A run needs something that is not here."""
        self._end("[yellow]missing[/]", title, reason(error))

    def failed(self, title: str, error: Exception) -> None:
        """A run ended without a record."""
        self._end("[red]failed[/]", title, reason(error))

    def note(self, text: str) -> None:
        """Say something."""
        self._console.print(f"[yellow]note[/] {escape(text)}", soft_wrap=True)

    def summary(self, summary: "Summary") -> None:
        """How the suite ended, in a line or two."""
        missing = f", {len(summary.missing)} missing something" if summary.missing else ""
        if summary.measured == 0 and not summary.failures and not missing:
            self._console.print(f"Nothing to do: all {summary.present} runs were measured already.")
        else:
            counts = f"{summary.measured} measured, {summary.present} already there, {len(summary.failures)} failed"
            self._console.print(f"{counts}{missing}.")
        for title, error in summary.failures:
            self._console.print(f"[red]failed[/] {escape(title)}: {escape(reason(error))}", soft_wrap=True)

    def places(self, page: Path, tracking: str) -> None:
        """Where to look now."""
        self._console.print(f"Page:    {page.resolve()}", soft_wrap=True)
        self._console.print(f"MLflow:  {opening(tracking)}", soft_wrap=True)

    def _end(self, what: str, title: str, text: str) -> None:
        self._ended += 1
        line = f"{self._ended:3d}/{self._runs} {what} {escape(title)}: {escape(text)}{self._tail()}"
        self._console.print(line, soft_wrap=True)  # a path in it stays in one piece
        if self._progress is not None and self._suite_bar is not None:
            self._progress.update(self._suite_bar, completed=self._ended, rate=self._left())
            self._update_run(visible=False)

    def _tail(self) -> str:
        quiet = self._console.is_terminal or self._ended == self._runs
        return "" if quiet else f" [dim]{self._left()}[/]"

    def _left(self) -> str:
        """Time left for the suite, from the mean over the runs that were measured."""
        if not self._measured:
            return ""
        mean = (time.perf_counter() - self._begun) / self._measured
        return time_left(mean * (self._runs - self._ended))

    def _update_run(self, **changes: object) -> None:
        if self._progress is not None and self._run_bar is not None:
            self._progress.update(self._run_bar, **changes)  # type: ignore[arg-type]
