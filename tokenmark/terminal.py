"""The console of all output."""

from rich.console import Console

WIDTH = 100


def console() -> Console:
    """A console as wide as the terminal, 100 columns at most (and exactly, where there is no terminal)."""
    probe = Console()
    return Console(width=min(probe.width, WIDTH) if probe.is_terminal else WIDTH, highlight=False, soft_wrap=False)
