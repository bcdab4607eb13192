"""How a preparation looks in a terminal: a bar with rate and time left; without a terminal, a line now and then."""

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from tokenmark.terminal import time_left

EVERY = 10.0
"""Seconds between lines where there is no terminal."""


class Bar:
    """A `Watcher` of a preparation."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (
            TextColumn("{task.description}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._bar: TaskID | None = None
        self._begun = self._told = time.perf_counter()
        self._first = self._total = 0

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bar while the preparation runs."""
        with self._progress:
            yield

    def phase(self, text: str) -> None:
        """Something begins that is not image by image."""
        self._console.print(f"[dim]{escape(text)}[/]", soft_wrap=True)

    def start(self, total: int, done: int) -> None:
        """Images are about to be decoded."""
        self._begun = self._told = time.perf_counter()
        self._first, self._total = done, total
        if done:
            self.note(f"goes on: {done:,} of {total:,} images were done before")
        self._bar = self._progress.add_task("images", total=total, completed=done, rate="")

    def advance(self, done: int) -> None:
        """So many images are done."""
        now = time.perf_counter()
        rate = (done - self._first) / max(now - self._begun, 1e-9)
        text = f"{rate:,.0f} images/s, {time_left((self._total - done) / max(rate, 1e-9))}"
        if self._bar is not None:
            self._progress.update(self._bar, completed=done, rate=text)
        if not self._console.is_terminal and (now - self._told >= EVERY or done == self._total):
            self._told = now
            self._console.print(f"{done:,}/{self._total:,} images, {text}", soft_wrap=True)

    def note(self, text: str) -> None:
        """Say something."""
        self._console.print(f"[yellow]note[/] {escape(text)}", soft_wrap=True)
