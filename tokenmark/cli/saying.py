"""How a verb shows that it is at work: a line that changes in a terminal, elsewhere one now and then; on stderr."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape

EVERY = 5.0
"""Seconds between lines where there is no terminal."""


@contextlib.contextmanager
def saying(console: Console | None = None) -> Iterator[Callable[[str], None]]:
    """Give a function that is told what is being done."""
    out = console or Console(stderr=True, highlight=False)
    told = time.monotonic()
    with out.status("") as status:

        def say(text: str) -> None:
            nonlocal told
            if out.is_terminal:
                status.update(escape(text))
            elif time.monotonic() - told >= EVERY:
                told = time.monotonic()
                out.print(escape(text), soft_wrap=True)

        yield say
