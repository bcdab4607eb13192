"""Runs that are killed or stopped, and go on: the end is the same as if nothing had happened."""

import dataclasses
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.e2e.harness import (
    JPEG,
    LONGEST,
    MASKGIT,
    ROOT,
    TOME,
    TOPK,
    Done,
    Place,
    lasting,
    write_suite,
)
from tests.long import takes_long

SAMPLES = (
    '{ task = "generation", method = "titok-maskgit", variant = "mini-16", preset = "mini", samples = 80,'
    ' measures = ["gfid"] }'
)
STATE, PICTURE, RECORD = "*/state.npz", "*.reconstructions.png", "*/records/*.json"
STATES_OF_ONE = 25
"""500 images in batches of 20, a state after each."""


def kill(pattern: str, nth: int, when: str) -> str:
    return f"faults.at_write({pattern!r}, {nth}, {when!r}, faults.kill)"


def check(place: Place, finished: Place, *methods: str) -> None:
    """The records are those of the undisturbed run, and nothing else is left."""
    records, expected = place.records(), finished.records()
    assert set(records) == set(methods)
    for method, record in records.items():
        assert lasting(record) == lasting(expected[method])
        for value in record["values"]:
            assert value["n"] in (500, 1)
    assert place.unfinished() == []
    left = [path.name for path in place.results.rglob("*.tmp")]
    assert left == []


KILLS = {
    "before-the-first-state": (kill(STATE, 1, "before"), [], 0),
    "in-the-middle-of-a-state": (kill(STATE, 7, "middle"), [], 120),
    "before-a-state-counts": (kill(STATE, 7, "before"), [], 120),
    "after-a-state": (kill(STATE, 7, "after"), [], 140),
    "between-two-measures": (
        "faults.at_call('tokenmark.measures.pixels', 'PixelMeasure.update', 10, faults.kill)",
        [],
        80,
    ),
    "before-the-picture": (kill(PICTURE, 1, "before"), [], 500),
    "in-the-middle-of-the-record": (kill(RECORD, 1, "middle"), [], 500),
    "before-the-record": (kill(RECORD, 1, "before"), [], 500),
    "after-the-record": (kill(RECORD, 1, "after"), ["jpeg"], 0),
    "in-the-second-job": (kill(STATE, STATES_OF_ONE + 9, "after"), ["jpeg"], 180),
}


@pytest.mark.parametrize(("before", "whole", "images"), KILLS.values(), ids=KILLS)
def test_killed_run_goes_on_to_the_same_records(place: Place, finished: Place, before, whole, images):
    methods = ("jpeg", "maskgit-vq") if whole else ("jpeg",)
    suite = write_suite(place.folder / "small.toml", *(JPEG, MASKGIT)[: len(methods)])
    killed = place.run(suite, before=before)
    assert killed.status == -signal.SIGKILL
    assert sorted(place.records()) == whole
    output = place.run(suite).well()
    goes_on = re.search(r"goes on at image (\d+) of 500", output)
    assert (int(goes_on[1]) if goes_on else 0) == images
    check(place, finished, *methods)


@takes_long
def test_a_run_killed_again_and_again_ends_the_same(place: Place, finished: Place):
    suite = write_suite(place.folder / "small.toml", JPEG, MASKGIT, TOME, TOPK)
    kills = 0
    while (done := place.run(suite, before=kill(STATE, 14, "after"))).status != 0:
        assert done.status == -signal.SIGKILL
        kills += 1
        assert kills < 10
    # 14 + 11 states to a job's end, and the next job's first ones count on: 100 states in kills of 14
    assert kills == 4 * STATES_OF_ONE // 14
    check(place, finished, "jpeg", "maskgit-vq", "tome", "topk")


def kept(place: Place):
    [path] = place.results.glob("samples/*.npz")
    with np.load(path, allow_pickle=False) as file:
        return file["arr_0"], file["arr_1"]


def test_a_killed_generation_resumes_to_the_identical_images(place: Place, tmp_path):
    suite = write_suite(place.folder / "small.toml", SAMPLES)
    whole = dataclasses.replace(place, folder=tmp_path / "whole")
    whole.folder.mkdir()
    whole.run(suite, "--keep", "60").well()
    killed = place.run(suite, "--keep", "60", before=kill(STATE, 2, "after"))
    assert killed.status == -signal.SIGKILL
    assert not list(place.results.glob("samples/*.npz"))
    assert "goes on at image 40 of 80" in place.run(suite, "--keep", "60").well()
    for resumed, undisturbed in zip(kept(place), kept(whole), strict=True):
        assert (resumed == undisturbed).all()
    assert kept(place)[0].shape == (60, 32, 32, 3)
    assert kept(place)[1].tolist() == [index % 10 for index in range(60)]
    [resumed], [undisturbed] = place.records().values(), whole.records().values()
    assert lasting(resumed) == lasting(undisturbed)
    # more of them from a run that has its record, each made again alone
    place.run(suite, "--keep", "75").well()
    assert (kept(place)[0][:60] == kept(whole)[0]).all()
    assert len(kept(place)[0]) == 75


@takes_long
def test_a_damaged_state_is_not_believed(place: Place, finished: Place):
    suite = write_suite(place.folder / "small.toml", JPEG)
    assert place.run(suite, before=kill(STATE, 7, "after")).status == -signal.SIGKILL
    [state] = place.results.glob(".partial/*/state.npz")
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(data)
    assert "goes on" not in place.run(suite).well()
    check(place, finished, "jpeg")


@takes_long
def test_a_kill_while_data_are_prepared(place: Place, finished: Place):
    suite = write_suite(place.folder / "small.toml", JPEG)
    place.data = place.folder / "data"
    assert place.run(suite, before=kill("*/manifest.json", 2, "before")).status == -signal.SIGKILL
    assert not (place.data / "digits-32").exists()
    place.run(suite).well()
    check(place, finished, "jpeg")
    assert [path.name for path in place.data.iterdir() if path.suffix != ".lock"] == ["digits-32"]


@takes_long
def test_a_kill_while_mlflow_is_told_doubles_nothing(place: Place, finished: Place):
    suite = write_suite(place.folder / "small.toml", JPEG)
    before = "faults.at_call('tokenmark.tracking', 'Tracker._batch', 1, faults.kill)"
    assert place.run(suite, before=before).status == -signal.SIGKILL
    assert "MLflow: 1 new runs" in place.run(suite).well()
    with sqlite3.connect(place.results / "mlflow.db") as store:
        assert store.execute("select status from runs where lifecycle_stage = 'active'").fetchall() == [("FINISHED",)]
    check(place, finished, "jpeg")


def stopped(done: Done) -> None:
    assert done.status == 130, done
    # click begins a new line after the terminal's ^C
    assert done.err.strip().splitlines() == [
        "tokenmark: stopped; nothing that was finished is lost, and the same command goes on from here"
    ]
    assert "Traceback" not in done.out


@pytest.mark.parametrize(
    ("before", "images"),
    [
        ("faults.at_write('*/state.npz', 5, 'before', faults.interrupt)", 80),
        ("faults.at_write('*/state.npz', 5, 'after', faults.interrupt)", 100),
        # PSNR, then SSIM: the fifth batch is in one and not in the other
        ("faults.at_call('tokenmark.measures.pixels', 'PixelMeasure.update', 10, faults.interrupt)", 80),
        ("faults.at_call('tokenmark.measures.frechet', 'PairedDistance.compute', 1, faults.interrupt)", 500),
    ],
    ids=["before-a-state", "after-a-state", "between-two-measures", "at-the-end"],
)
def test_interrupted_run_says_so_and_goes_on(place: Place, finished: Place, before, images):
    suite = write_suite(place.folder / "small.toml", JPEG)
    stopped(place.run(suite, before=before))
    assert f"goes on at image {images} of 500" in place.run(suite).well()
    check(place, finished, "jpeg")


@takes_long
def test_control_c_at_a_process_started_from_a_shell(place: Place, finished: Place):
    """The same without this folder's server: `python -m tokenmark`, stopped from outside, then run again."""
    suite = write_suite(place.folder / "small.toml", JPEG)
    # python imports sitecustomize by itself at its start
    (place.folder / "sitecustomize.py").write_text(
        "from tests.e2e import faults\n"
        f"faults.at_write('*/state.npz', 3, 'after', faults.pause({str(place.folder)!r}))\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "tokenmark", *place.suite(suite)]
    env = {**place.environment(), "PYTHONPATH": f"{place.folder}{os.pathsep}{ROOT}"}
    process = subprocess.Popen(
        command, env=env, cwd=place.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while not (place.folder / "waiting").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LONGEST)
    finally:
        process.kill()
    stopped(Done(process.returncode, out, err))
    assert "goes on at image 60 of 500" in place.run(suite).well()
    check(place, finished, "jpeg")


@takes_long
def test_two_runs_at_once(place: Place, finished: Place):
    suite = write_suite(place.folder / "small.toml", JPEG)
    first = place.start(
        *place.suite(suite), before=f"faults.at_write('*/state.npz', 3, 'after', faults.pause({str(place.folder)!r}))"
    )
    first.until(place.folder / "waiting")
    place.run(suite).mistake("another run is writing to", "--results")
    (place.folder / "go").touch()
    first.wait().well()
    check(place, finished, "jpeg")


@takes_long
def test_a_full_disk_is_one_line_and_loses_nothing(place: Place, finished: Place):
    suite = write_suite(place.folder / "small.toml", JPEG, MASKGIT)
    place.run(suite, "--method", "jpeg").well()
    before = place.records()["jpeg"]
    place.run(suite, before="faults.limit_file_size(60_000)").mistake("cannot write", "state.npz", "File too large")
    assert place.records() == {"jpeg": before}
    place.run(suite).well()
    assert place.records()["jpeg"] == before
    check(place, finished, "jpeg", "maskgit-vq")


@takes_long
def test_a_full_disk_at_the_picture_of_a_record(place: Place, finished: Place):
    suite = write_suite(place.folder / "small.toml", JPEG)
    full = "import os\ndef act(): raise OSError(28, os.strerror(28))\nfaults.at_write('*/records/*', 1, 'before', act)"
    place.run(suite, before=full).mistake("No space left on device", "run the same command again")
    assert place.records() == {}
    assert "goes on at image 500 of 500" in place.run(suite).well()
    check(place, finished, "jpeg")
