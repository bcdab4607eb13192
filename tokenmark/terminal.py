"""The console of all output."""

from rich.console import Console

WIDTH = 100


def time_left(seconds: float) -> str:
    """Time left, in words."""
    return f"about {seconds:.0f} s left" if seconds < 120 else f"about {seconds / 60:.0f} min left"


def console() -> Console:
    """A console as wide as the terminal, 100 columns at most (and exactly, where there is no terminal)."""
    probe = Console()
    return Console(width=min(probe.width, WIDTH) if probe.is_terminal else WIDTH, highlight=False, soft_wrap=False)
