"""How a preparation looks, with a terminal and without."""

import io

import pytest
from rich.console import Console

from tokenmark.cli import bar
from tokenmark.cli.bar import Bar


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    now = [0.0]
    monkeypatch.setattr(bar.time, "perf_counter", lambda: now[0])
    return now


def show(clock, *, terminal):
    out = io.StringIO()
    watcher = Bar(Console(file=out, force_terminal=terminal, width=100, color_system=None))
    with watcher.shown():
        watcher.phase("looking through [val]")
        watcher.start(1000, 200)
        for second in range(1, 41):
            clock[0] = float(second)
            watcher.advance(200 + 20 * second)
    return out.getvalue()


def test_lines_where_there_is_no_terminal(clock):
    assert show(clock, terminal=False).splitlines() == [
        "looking through [val]",
        "note goes on: 200 of 1,000 images were done before",
        "400/1,000 images, 20 images/s, about 30 s left",
        "600/1,000 images, 20 images/s, about 20 s left",
        "800/1,000 images, 20 images/s, about 10 s left",
        "1,000/1,000 images, 20 images/s, about 0 s left",
    ]


def test_a_bar_with_rate_and_time_left(clock):
    """The rate is that of this run: what an earlier one did is not counted."""
    shown = show(clock, terminal=True)
    assert "images/s, about" in shown
    assert "400/1,000 images, " not in shown
