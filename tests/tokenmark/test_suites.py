"""Suites: every way in which a file can be wrong is one line that names the file and the place."""

import tomllib
from pathlib import Path

import pytest

from tokenmark import suites
from tokenmark.errors import SuiteError, TokenmarkError, UnknownNameError

GOOD = """
version = 1
title = "Made"
protocol = "mini"
batch_size = 50
timing = { batches = [1, 8], min_seconds = 0.5, min_rounds = 3 }
jobs = [
  { task = "reconstruction", method = "jpeg", variant = "q50", measures = ["psnr"] },
  { task = "reconstruction", method = "one-d-piece", variant = "mini-16", tokens = [1, 16] },
  { task = "generation", method = "titok-maskgit", variant = "mini-16", preset = "mini", samples = 100 },
  { task = "classification", method = "tome", model = "vit-mini", settings = { r = 4 } },
]
"""


@pytest.fixture
def load(tmp_path):
    def load_changed(old="", new=""):
        assert old in GOOD
        path = tmp_path / "made.toml"
        path.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
        return suites.load(path)

    return load_changed


def test_a_good_suite(load):
    suite = load()
    assert [job.task for job in suite.jobs] == ["reconstruction", "reconstruction", "generation", "classification"]
    assert suite.jobs[0].measures == ["psnr"]
    assert suite.jobs[1].tokens == [1, 16]
    assert suite.jobs[3].settings == {"r": 4}
    assert suite.jobs[3].precision == "float32"
    assert load("settings = { r = 4 }", 'precision = "bfloat16"').jobs[3].precision == "bfloat16"
    assert (suite.seed, suite.timing.compiled) == (None, False)
    assert load("min_seconds = 0.5", "min_seconds = 1").timing.min_seconds == 1.0


WRONG = {
    "unknown key": ('title = "Made"', 'titel = "Made"\ntitle = "Made"', "titel: unknown key; did you mean 'title'?"),
    "unknown key of a job": ("variant = ", "varient = 1, variant = ", "jobs.0.varient: unknown key.*'variant'"),
    "unknown key of the timing": (
        "min_rounds",
        "min_round = 3, min_rounds",
        "timing.min_round: unknown key.*'min_rounds'",
    ),
    "a key of another task": ('"tome", ', '"tome", tokens = [1], ', "jobs.3.tokens: unknown key"),
    "missing key": ("batch_size = 50", "", "batch_size: Field required"),
    "missing key of a job": ('variant = "q50", ', "", "jobs.0.variant: Field required"),
    "wrong type": ("batch_size = 50", 'batch_size = "50"', r"batch_size: .*integer \(got '50'\)"),
    "a fraction": ("batch_size = 50", "batch_size = 50.0", "batch_size: .*integer"),
    "a truth": ("batch_size = 50", "batch_size = true", "batch_size: .*integer"),
    "too small": ("batch_size = 50", "batch_size = 0", r"batch_size: .*greater than or equal to 1 \(got 0\)"),
    "wrong type in a job": ("tokens = [1, 16]", 'tokens = [1, "16"]', "jobs.1.tokens.1: .*integer"),
    "no token": ("tokens = [1, 16]", "tokens = [0]", "jobs.1.tokens.0: .*greater"),
    "one sample": ("samples = 100", "samples = 1", "jobs.2.samples: .*greater"),
    "a precision that is not measured": (
        "settings = { r = 4 }",
        'precision = "float16"',
        "jobs.3.precision: .*float32.*bfloat16",
    ),
    "unknown task": (
        'task = "generation"',
        'task = "generate"',
        "jobs.2: unknown task generate; tasks are .*generation",
    ),
    "no task": ('task = "generation", ', "", "jobs.2: .*task"),
    "a measure of no task": ('["psnr"]', '["psrn"]', "jobs.0: unknown measure of task reconstruction 'psrn'.*psnr"),
    "a measure of another task": ('["psnr"]', '["gfid"]', "jobs.0: unknown measure of task reconstruction 'gfid'"),
    "another version": ("version = 1", "version = 2", "version: .*1"),
    "no jobs": (GOOD[GOOD.index("jobs = [") :], "jobs = []", "jobs: .*at least 1"),
    "jobs that are no tables": (GOOD[GOOD.index("jobs = [") :], "jobs = [3]", "jobs.0: "),
    "timing without batches": ("batches = [1, 8]", "batches = []", "timing.batches: .*at least 1"),
    "timing of batch 0": ("batches = [1, 8]", "batches = [0]", "timing.batches.0: "),
    "timing without end": ("min_seconds = 0.5", "min_seconds = inf", "timing.min_seconds: .*finite"),
    "timing of no time": ("min_seconds = 0.5", "min_seconds = 0", "timing.min_seconds: .*greater than 0"),
    "a seed that torch would cut": ("batch_size = 50", "batch_size = 50\nseed = 4294967296", "seed: .*less than"),
    "a seed below 0": ("batch_size = 50", "batch_size = 50\nseed = -1", "seed: .*greater"),
    "not TOML": ('title = "Made"', "title = Made", "is not TOML: .*line 3"),
    "cut off": (GOOD[-30:], "", "is not TOML"),
    "a date": ('title = "Made"', "title = 2026-01-01", "title: .*string"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_line_with_the_place(load, tmp_path, name):
    old, new, message = WRONG[name]
    with pytest.raises(SuiteError, match=message) as error:
        load(old, new)
    assert str(tmp_path / "made.toml") in str(error.value)
    assert "\n" not in str(error.value)
    assert "pydantic" not in str(error.value)


def test_unknown_protocol(load):
    with pytest.raises(UnknownNameError, match="unknown protocol 'minni': did you mean mini"):
        load('protocol = "mini"', 'protocol = "minni"')


def test_no_text_and_no_file(tmp_path):
    path = tmp_path / "made.toml"
    with pytest.raises(SuiteError, match=f"{path} cannot be read: No such file"):
        suites.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SuiteError, match="is not TOML"):
        suites.load(path)
    with pytest.raises(SuiteError, match="cannot be read: Is a directory"):
        suites.load(tmp_path)


def test_found_by_name_or_by_path(tmp_path):
    (tmp_path / "made.toml").write_text(GOOD)
    assert suites.find("made", tmp_path) == tmp_path / "made.toml"
    assert suites.find(str(tmp_path / "made.toml"), tmp_path / "elsewhere") == tmp_path / "made.toml"
    with pytest.raises(UnknownNameError, match="unknown suite 'mode': did you mean made"):
        suites.find("mode", tmp_path)
    with pytest.raises(TokenmarkError, match="there are none"):
        suites.find("made", tmp_path / "elsewhere")


def test_the_suites_of_the_repository():
    folder = Path(__file__).parents[2] / "suites"
    found = sorted(folder.glob("*.toml"))
    assert found
    for path in found:
        assert len(suites.load(path).jobs) == len(tomllib.loads(path.read_text())["jobs"])
