"""The environment that a record was made in, made again: its commit in a working tree of its own, its lock installed.

Nothing of the user's checkout is touched but git's list of working trees, which is put right at the end.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenmark.checkout import Checkout
from tokenmark.errors import TokenmarkError
from tokenmark.files import sha256_bytes
from tokenmark.records import Record
from tokenmark.store import Results


class PinnedError(TokenmarkError):
    """An environment that cannot be made again, with what is missing."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """A working tree and its environment."""

    tree: Path
    python: Path
    lock: Path

    def run(self, record: Record, results: Path, data: Path, weights: Path, device: str) -> Record:
        """Measure the record's run again by this environment's own command line; gives the new record.

        Raises:
            PinnedError: it failed, or did not measure this experiment.
        """
        spec = record.spec
        words = [str(self.python), "-m", "tokenmark", "run", spec.suite, "--method", spec.method]
        words += ["--results", str(results), "--data", str(data), "--weights", str(weights), "--device", device]
        if self._knows("--run"):
            words += ["--run", spec.experiment]
        if spec.samples and any(text.startswith("not comparable: of") for text in record.warnings):
            words += ["--limit", str(spec.samples)]
        done = subprocess.run([*words, "--no-page"], cwd=self.tree, env=self._environment(record, results))  # noqa: S603, PLW1510
        found = [each for each in Results(results).all() if each.spec.experiment == spec.experiment]
        if not found:
            raise PinnedError(
                f"suite {spec.suite} at commit {_commit(record)[:12]} did not measure this experiment (status"
                f" {done.returncode}; what it says stands above)"
            )
        return found[0]

    def _knows(self, option: str) -> bool:
        words = [str(self.python), "-m", "tokenmark", "run", "--help"]
        told = subprocess.run(words, cwd=self.tree, capture_output=True, text=True)  # noqa: S603, PLW1510
        return f"{option} " in told.stdout

    def _environment(self, record: Record, results: Path) -> dict[str, str]:
        mine = {
            "TOKENMARK_SITE": record.spec.site,
            "TOKENMARK_LOCK": str(self.lock),
            "MLFLOW_TRACKING_URI": f"sqlite:///{results}/mlflow.db",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONPATH": str(self.tree),
        }
        if record.environment.device == "cpu":
            mine["OMP_NUM_THREADS"] = str(record.environment.threads)
        return {**os.environ, **mine}


@contextlib.contextmanager
def made(record: Record, checkout: Checkout, folder: Path, say: Callable[[str], object]) -> Iterator[Pinned]:
    """The record's commit and its pinned environment in a folder, which goes with its working tree.

    Raises:
        PinnedError: git, uv, the commit or the lock is missing, or something cannot be installed.
    """
    commit, lock = _possible(record, checkout)
    tree, env = folder / "tree", folder / "env"
    say(f"commit {commit[:12]} into a working tree of its own")
    _do(["git", "-C", str(checkout.root), "worktree", "add", "--detach", str(tree), commit])
    try:
        python = env / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        wanted = ".".join(record.environment.python.split(".")[:2])
        say(f"Python {wanted} and {lock}, hash by hash: minutes where uv has none of it yet")
        _do(["uv", "venv", "--quiet", "--python", wanted, str(env)])
        install = ["uv", "pip", "install", "--quiet", "--python", str(python)]
        _do([*install, "--require-hashes", "-r", str(tree / "locks" / lock)])
        _do([*install, "--no-deps", "--no-build-isolation", "-e", str(tree)])
        yield Pinned(tree, python, tree / "locks" / lock)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
        checkout.ask("worktree", "prune")


def _possible(record: Record, checkout: Checkout) -> tuple[str, str]:
    """Commit and lock of a record, if all is here that makes them again."""
    for tool in ("git", "uv"):
        if shutil.which(tool) is None:
            raise PinnedError(f"{tool} is not installed, which the pinned environment needs: install {tool}")
    environment, commit = record.environment, _commit(record)
    if environment.dirty is not False:
        raise PinnedError(f"files differed from commit {commit[:12]} when it was measured: no commit holds what ran")
    if environment.lock is None or environment.lock_sha256 is None:
        raise PinnedError("its environment was not pinned, so it cannot be made again")
    if checkout.commit(commit) != commit:
        raise PinnedError(
            f"commit {commit[:12]} is not in {checkout.root}: fetch it (`git fetch --unshallow`, or --all)"
        )
    held = checkout.files(commit, f"locks/{environment.lock}").get(f"locks/{environment.lock}")
    if held is None or sha256_bytes(held) != environment.lock_sha256:
        raise PinnedError(f"commit {commit[:12]} does not have the {environment.lock} that pinned it")
    return commit, environment.lock


def _commit(record: Record) -> str:
    if record.environment.commit is None:
        raise PinnedError("its commit is not known, so what ran cannot be made again")
    return record.environment.commit


def _do(words: Sequence[str]) -> None:
    done = subprocess.run(list(words), capture_output=True, text=True)  # noqa: S603, PLW1510
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise PinnedError(f"`{' '.join(words[:4])} ...` failed: {' '.join(lines)[-300:] or done.returncode}")
