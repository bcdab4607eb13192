"""Faults at chosen moments of a run, put in place inside the process before Tokenmark starts. Nothing else is changed.

Moments are counted in files written atomically: the n-th whose name matches, before or after its rename, or with half
of it written.
"""

import os
import signal
import time
from fnmatch import fnmatch
from pathlib import Path


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)  # the signal is handled here


def pause(folder: str):
    """Say `waiting` in a folder, and wait until `go` is said there (or a signal comes)."""

    def act() -> None:
        Path(folder, "waiting").touch()
        end = time.monotonic() + 300
        while not Path(folder, "go").exists() and time.monotonic() < end:
            time.sleep(0.01)

    return act


def at_write(pattern: str, nth: int, when: str, act) -> None:
    """Act at the n-th atomic write of a file like `pattern`: `before` or `after` its rename, or in the `middle`."""
    rename, count = os.replace, 0

    def replace(source, target, **more) -> None:
        nonlocal count
        matches = fnmatch(str(target), pattern)
        count += matches
        if matches and count == nth and when == "middle":
            os.truncate(source, Path(source).stat().st_size // 2)
        if matches and count == nth and when in ("before", "middle"):
            act()
        rename(source, target, **more)
        if matches and count == nth and when == "after":
            act()

    os.replace = replace


def at_call(module: str, name: str, nth: int, act) -> None:
    """Act just before the n-th call of a function or method, `Class.method`, of a module."""
    import importlib

    *path, last = name.split(".")
    owner = importlib.import_module(module)
    for part in path:
        owner = getattr(owner, part)
    function, count = getattr(owner, last), 0

    def called(*args, **kwargs):
        nonlocal count
        count += 1
        if count == nth:
            act()
        return function(*args, **kwargs)

    setattr(owner, last, called)


def limit_file_size(size: int) -> None:
    """No file of this process may grow beyond `size` bytes: what a full disk or a quota does to a writer."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
