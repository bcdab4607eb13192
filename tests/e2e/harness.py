"""Run the command line as processes, and read what they leave behind."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LONGEST = 400.0
"""Seconds after which a process hangs for sure."""

SUITE = """
version = 1
title = "Small"
protocol = "mini"
batch_size = 20
timing = { batches = [1], min_seconds = 0.02, min_rounds = 3 }
jobs = [
"""
JPEG = '{ task = "reconstruction", method = "jpeg", variant = "q50", measures = ["rfid", "psnr", "ssim", "rate"] }'
MASKGIT = '{ task = "reconstruction", method = "maskgit-vq", variant = "mini" }'
TOME = (
    '{ task = "classification", method = "tome", model = "vit-mini", settings = { r = 4 },'
    ' measures = ["accuracy", "cost"] }'
)
TOPK = (
    '{ task = "classification", method = "topk", model = "vit-mini", settings = { keep_rate = 0.7 },'
    ' measures = ["accuracy", "cost"] }'
)


def write_suite(path: Path, *jobs: str) -> Path:
    """A suite file with these jobs."""
    path.write_text(SUITE + "".join(f"  {job},\n" for job in jobs) + "]\n", encoding="utf-8")
    return path


@dataclass(frozen=True)
class Done:
    """How a process ended."""

    status: int
    out: str
    err: str

    def mistake(self, *words: str) -> str:
        """The one line that a user's mistake gives, which holds all `words`."""
        assert self.status == 2, f"status {self.status}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.out + self.err
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("tokenmark: ")
        for word in words:
            assert word in lines[0], f"{word!r} is not in {lines[0]!r}"
        return lines[0]

    def well(self) -> str:
        """The output of a process that ended well."""
        assert self.status == 0, f"status {self.status}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.out + self.err
        return self.out

    def failed(self, *words: str) -> str:
        """The output of a run in which a job failed, with a line that holds all `words`."""
        assert self.status == 2, f"status {self.status}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.out + self.err
        text = " ".join(self.out.split())
        for word in words:
            assert word in text, f"{word!r} is not in {self.out!r}"
        return self.out


@dataclass
class Server:
    """The process that forks runs."""

    folder: Path
    process: subprocess.Popen[str]
    count: int = 0

    @classmethod
    def start(cls, folder: Path) -> "Server":
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(folder)}
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        server = cls(folder, process)
        assert server._answer() == {"ready": True}
        return server

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(LONGEST)


@dataclass
class Running:
    """A run under way."""

    server: Server
    pid: int
    stdout: Path
    stderr: Path

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def until(self, path: Path) -> None:
        """Wait until the run has made a file."""
        end = time.monotonic() + LONGEST
        while not path.exists():
            ended = self.server.ask(wait=self.pid, seconds=0.02)["status"]
            assert ended is None, f"it ended, status {ended}\n{self.stdout.read_text()}\n{self.stderr.read_text()}"
            assert time.monotonic() < end, "it hangs"

    def wait(self) -> Done:
        status = self.server.ask(wait=self.pid, seconds=LONGEST)["status"]
        if status is None:
            self.send(signal.SIGKILL)
            self.server.ask(wait=self.pid, seconds=LONGEST)
        text = self.stdout.read_text(encoding="utf-8"), self.stderr.read_text(encoding="utf-8")
        assert status is not None, f"it hangs\n{text}"
        return Done(status, *text)


@dataclass
class Place:
    """A results folder and what is needed to run into it."""

    server: Server
    folder: Path
    data: Path
    env: dict[str, str] = field(default_factory=dict)
    path: tuple[Path, ...] = ()
    """Folders put first on the import path: a plugin's, or a copy of the repository."""

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
        return {
            **kept,
            "HOME": str(self.folder),
            "MPLCONFIGDIR": str(self.server.folder),
            "OMP_NUM_THREADS": "1",
            "TOKENMARK_SITE": "test",
            "TOKENMARK_CHECKPOINT_SECONDS": "0",
            **self.env,
        }

    def start(self, *argv: str | Path, before: str = "") -> Running:
        """Start the command line; `before` is done first, in the same process."""
        self.server.count += 1
        stdout, stderr = (self.server.folder / f"{self.server.count}.{name}" for name in ("out", "err"))
        answer = self.server.ask(
            argv=[str(part) for part in argv],
            env=self.environment(),
            cwd=str(self.folder),
            path=[*map(str, self.path), str(ROOT)],
            before=f"from tests.e2e import faults\n{before}" if before else "",
            stdout=str(stdout),
            stderr=str(stderr),
        )
        return Running(self.server, answer["pid"], stdout, stderr)

    def call(self, *argv: str | Path, before: str = "") -> Done:
        """Run the command line to its end."""
        return self.start(*argv, before=before).wait()

    def suite(self, suite: Path | str, *more: str) -> tuple[str, ...]:
        """The arguments that run a suite in this place, without the page unless `more` says otherwise."""
        page = () if "--page" in more else ("--no-page",)
        place = ("--results", str(self.results), "--data", str(self.data), "--device", "cpu")
        return ("run", str(suite), *place, *page, *more)

    def run(self, suite: Path | str, *more: str, before: str = "") -> Done:
        """Run a suite to its end."""
        return self.call(*self.suite(suite, *more), before=before)

    def records(self) -> dict[str, dict[str, Any]]:
        """All finished records by method; one of each is expected."""
        found = {}
        for path in sorted((self.results / "records").glob("*/*/*.json")):
            record = json.loads(path.read_bytes())
            assert record["spec"]["method"] not in found
            found[record["spec"]["method"]] = record
        return found

    def unfinished(self) -> list[str]:
        """Runs that have a state on disk."""
        return sorted(path.name for path in (self.results / ".partial").glob("*"))


VARYING = ("started", "durations", "peak_memory_bytes", "seal")


def lasting(record: dict[str, Any]) -> dict[str, Any]:
    """What of a record must be the same whenever it is measured again."""
    kept = {name: value for name, value in record.items() if name not in VARYING}
    # a checkout may be edited while its tests run; the method's own source is in the specification
    kept["environment"] = {k: v for k, v in record["environment"].items() if k not in ("commit", "dirty")}
    return kept
