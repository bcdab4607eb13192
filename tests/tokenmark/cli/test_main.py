"""The command line: verbs, statuses, and mistakes in one line."""

import json

import pytest

from tests.tokenmark import make
from tokenmark import __version__
from tokenmark.cli.main import VERBS, status_of
from tokenmark.store import Results


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run the command line in an empty folder; gives status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        status = status_of(list(arguments))
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def stored(tmp_path):
    """Two records in the default results folder."""
    results = Results(tmp_path / "results")
    records = [make.record(pictures={"shown": b"png"}), make.classified()]
    results.write(records[0], {"shown": b"png"})
    results.write(records[1], {})
    return records


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(run, verb):
    status, out, err = run(verb, "--help")
    assert (status, err) == (0, "")
    assert f"Usage: tokenmark {verb}" in out
    assert len(out.splitlines()) > 5


def test_help_names_every_verb_with_its_line(run):
    status, out, _ = run("--help")
    assert status == 0
    for verb in VERBS:
        (line,) = [line for line in out.splitlines() if line.strip().startswith(f"{verb} ")]
        assert len(line.split()) > 3


def test_version(run):
    status, out, _ = run("--version")
    assert status == 0
    assert __version__ in out


MISTAKES = [
    (("runn", "mini"), "unknown command 'runn': did you mean 'run'?"),
    (("xyz",), "unknown command 'xyz': there are: list"),
    (("run",), "Missing argument 'SUITE...'"),
    (("run", "absent"), "unknown suite 'absent': there are none"),
    (("run", "absent", "--device", "tpu9"), "device 'tpu9' cannot be used"),
    (("run", "absent", "--no-such"), "No such option '--no-such'"),
    (("throughput",), "nothing to time: give --models, --tokenizers, or both"),
    (("throughput", "--models", "deit_tny_patch16_224"), "did you mean deit_tiny_patch16_224"),
    (("throughput", "--models", "test_vit", "--methods", "tme"), "unknown method 'tme'"),
    (("throughput", "--models", "test_vit", "--set", "tome.rr=1"), "unknown setting of tome 'rr'"),
    (("throughput", "--models", "test_vit", "--batches", "0"), "timing.batches.0"),
    (("throughput", "--models", "test_vit", "--precision", "float16"), "'float16' is not one of"),
    (("throughput", "--models", "test_vit", "--device", "tpu9"), "device 'tpu9' cannot be used"),
    (("show", "--jsn"), "--json"),
    (("show", "abcdef"), "no record in results/records begin with 'abcdef'"),
    (("compare", "abcd"), "Missing argument 'B'"),
    (("list", "method"), "'method' is not one of 'methods', 'suites'"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_a_mistake_is_one_line_and_status_2(run, arguments, message):
    status, out, err = run(*arguments)
    assert status == 2
    assert err.startswith("tokenmark: ")
    assert err.count("\n") == 1
    assert message in err
    assert "Traceback" not in out + err


def test_a_broken_suite_file(run, tmp_path):
    (tmp_path / "made.toml").write_text("version = 1\ntitel = 3\n")
    status, _, err = run("run", "made.toml")
    assert status == 2
    assert err.startswith("tokenmark: made.toml: ")


def test_list_as_json(run, tmp_path):
    status, out, _ = run("list", "--json")
    methods = {row["method"]: row for row in json.loads(out)}
    assert status == 0
    assert methods["tome"]["kind"] == "reducer"
    assert "q50" in methods["jpeg"]["variants"]
    assert json.loads(run("list", "suites", "--json")[1]) == []


def test_list_for_readers(run):
    status, out, _ = run("list")
    assert status == 0
    assert max(map(len, out.splitlines())) <= 100
    for name in ("jpeg", "titok-maskgit", "tome-3stage"):
        assert name in out


def test_show_without_records(run):
    status, out, _ = run("show")
    assert status == 0
    assert "No records" in out


def test_show(run, stored):
    status, out, _ = run("show")
    assert status == 0
    assert "jpeg/q50" in out
    assert "tome r=4" in out
    status, out, _ = run("show", stored[0].run[:12], "--json")
    assert status == 0
    assert out.encode() == stored[0].to_json()
    status, out, _ = run("show", stored[1].run[:12])
    assert status == 0
    assert stored[1].run in out


def test_compare(run, stored):
    status, out, _ = run("compare", stored[0].run[:12], stored[1].run[:12])
    assert status == 0
    assert "different experiments" in out


def test_an_altered_record_stops_show_and_the_page(run, stored, tmp_path):
    path = Results(tmp_path / "results").path(stored[0].spec)
    path.write_bytes(path.read_bytes().replace(b"27.5", b"28.5"))
    for verb in ("show", "leaderboard", "sync"):
        status, _, err = run(verb)
        assert status == 2
        assert "was altered" in err
        assert err.count("\n") == 1
    assert not (tmp_path / "results" / "site").exists()


def test_leaderboard(run, stored, tmp_path):
    status, out, _ = run("leaderboard", "--out", "pages")
    assert status == 0
    assert str(tmp_path / "pages" / "index.html") in out
    listed = (tmp_path / "pages" / "records" / "index.html").read_text()
    for record in stored:
        assert record.run in listed


def test_a_page_that_cannot_be_written(run, stored, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, err = run("leaderboard", "--out", "file/pages")
    assert status == 2
    assert "cannot write" in err
