"""The same suite by two processes under torchrun: the same records, and nothing lost when one of them dies."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.harness import MASKGIT, ROOT, TOME, Place, lasting, write_suite
from tests.long import takes_long

GENERATOR = (
    '{ task = "generation", method = "titok-maskgit", variant = "mini-16", preset = "mini", samples = 130,'
    " batch_size = 50 }"
)
LONG = GENERATOR.replace("samples = 130", "samples = 300").replace("batch_size = 50", "batch_size = 5")
"""Sixty steps: time enough to kill a process in the middle."""
UNEVEN = MASKGIT[:-1] + ", batch_size = 200 }"
"""Three batches, the last one short: one for a process, two for the other."""

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="processes are told apart and killed by signals, as POSIX has them"
)


def torchrun(place: Place, suite: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**place.environment(), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*command, "-m", "tokenmark", *place.suite(suite)],
        env=environment,
        cwd=place.folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def workers(process: subprocess.Popen[str]) -> dict[str, int]:
    """The processes that torchrun started, by rank."""
    found = {}
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if (rank := child.environ().get("RANK")) is not None:
                    found[rank] = child.pid
    return found


@takes_long
def test_two_processes_make_the_records_of_one(place: Place, tmp_path):
    suite = write_suite(tmp_path / "shared.toml", UNEVEN, GENERATOR, TOME)
    place.run(suite).well()
    alone = {name: lasting(record) for name, record in place.records().items()}
    pair = Place(place.server, tmp_path / "pair", place.data)
    pair.folder.mkdir()
    process = torchrun(pair, suite)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, out + err
    assert out.count("measured maskgit-vq/mini") == 1, "one process speaks"
    together = {name: lasting(record) for name, record in pair.records().items()}
    assert together == alone
    assert pair.unfinished() == []


@takes_long
def test_a_process_that_dies_ends_the_run_and_the_next_start_goes_on(place: Place, tmp_path):
    suite = write_suite(tmp_path / "shared.toml", LONG)
    process = torchrun(place, suite)
    end = time.monotonic() + 300
    state = "*/state-1-of-2.npz"
    while not any((place.results / ".partial").glob(state)) or "0" not in workers(process):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it hangs"
        time.sleep(0.005)
    os.kill(workers(process)["1"], signal.SIGKILL)
    out, err = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "another of the 2 processes ended: start the same command again" in err, out + err
    assert len(place.unfinished()) == 1
    again = torchrun(place, suite)
    out, err = again.communicate(timeout=400)
    assert again.returncode == 0, out + err
    alone = Place(place.server, tmp_path / "alone", place.data)
    alone.folder.mkdir()
    alone.run(suite).well()
    assert {k: lasting(v) for k, v in place.records().items()} == {k: lasting(v) for k, v in alone.records().items()}
    assert place.unfinished() == []
