"""A submission: whole or not there, and only of records that pass."""

import json
import shutil
from pathlib import Path

import pytest

from tests.tokenmark import clone, make
from tokenmark.checkout import Checkout
from tokenmark.errors import RecordError, StorageError, TokenmarkError
from tokenmark.publish import checks, submit
from tokenmark.publish.subject import Known
from tokenmark.store import Results

VECTORS = Path(__file__).parents[3] / "tests" / "vectors"


@pytest.fixture
def mine(root):
    """A clone whose records its owner has not committed yet."""
    clone.git(root, "rm", "--quiet", "--cached", "-r", "results")
    return root


def known(root):
    return Known(Checkout.around(root), root / "results" / "records")


def checked(root, *names):
    results = Results(root / "results")
    asked = known(root)
    paths = submit.found(results, names)
    return paths, submit.check(paths, results, asked), asked


def test_what_is_written(mine, tmp_path):
    record = clone.of(mine, "jpeg")
    paths, refused, asked = checked(mine, record.run[:12], clone.of(mine, "strided").run[:8])
    assert refused == []
    out = tmp_path / "out" / "submission"
    assert [each.spec.method for each in submit.write(paths, out, asked)] == ["jpeg", "strided"]
    copied = Results(out / "results")
    assert sorted(each.run for each in copied.all()) == sorted(path.stem for path in paths)
    for path in paths:
        assert (copied.path(copied.read(next(copied.records.glob(f"*/*/{path.name}"))).spec)).read_bytes() == (
            path.read_bytes()
        )
    assert sorted(path.name for path in out.iterdir()) == [submit.TEXT, "results"]
    assert list(out.parent.iterdir()) == [out]  # nothing half written beside it
    text = (out / submit.TEXT).read_text(encoding="utf-8")
    for words in (record.run[:12], "jpeg/q10", "rfid", record.spec.device, "site-a", "reproduce", "bench.txt"):
        assert words in text
    for check in checks.CHECKS:
        assert f"- [x] {check.id}: " in text
    assert "jpeg: no vectors of a release" in text
    again = submit.write(paths[:1], out, asked)
    assert len(Results(out / "results").all()) == len(again) == 1


def test_its_commands_bring_the_records_into_a_clone(mine, root, tmp_path, monkeypatch):
    monkeypatch.chdir(mine)
    paths, _, asked = checked(mine, clone.of(mine, "jpeg").run[:12])
    records = submit.write(paths, tmp_path / "submission", asked)
    commands = submit.commands(records, tmp_path / "submission", asked.checkout)
    shutil.rmtree(mine / "results")
    clone.commit(mine, "Without")
    for command in commands[:-2]:  # the last two need somebody's server
        words = command.split(" ", 1)
        assert words[0] in {"git", "cp"}
        if words[0] == "cp":
            clone.subprocess.run(["mkdir", "-p", "results"], cwd=mine, check=True)
            clone.subprocess.run(command.split(), cwd=mine, check=True)
        elif words[1].startswith("commit"):
            clone.git(mine, "commit", "--quiet", "--message", command.split('"')[1])
        elif words[1].startswith("add"):
            clone.subprocess.run(command, cwd=mine, check=True, shell=True)  # its star is the shell's
        else:
            clone.git(mine, *words[1].split())
    listed = clone.git(mine, "show", "--name-only", "--format=").split()
    record = records[0]
    assert sorted(listed) == [
        f"results/records/small/jpeg/{record.run}.json",
        f"results/records/small/jpeg/{record.run}.reconstructions.png",
    ]
    assert commands[-1].startswith("gh pr create")


def test_every_stage_is_asked(mine):
    record = clone.of(mine, "jpeg")
    bad = clone.put(
        mine, clone.resealed(record, spec={"implementation": "0" * 64}, environment={"dirty": True}), record
    )
    _, refused, _ = checked(mine, str(bad))
    assert [each.check for each in refused] == ["implementation", "provenance"]
    assert all(str(each).startswith(f"{bad}: {each.check}: ") for each in refused)


def test_a_record_of_the_repository(root):
    record = clone.of(root, "jpeg")
    _, refused, _ = checked(root, record.run[:12])
    assert [(each.check, each.text.partition(":")[0]) for each in refused] == [
        ("duplicate", "it is in the repository already")
    ]


def test_another_record_of_a_run_that_the_repository_has(root, tmp_path):
    record = clone.of(root, "jpeg")
    place = tmp_path / "mine" / "results"
    shutil.copytree(root / "results", place)
    path = Results(place).path(record.spec)
    path.write_bytes(clone.resealed(record, started="2026-01-01T00:00:00+00:00").to_json())
    asked = known(root)
    refused = submit.check([path], Results(place), asked)
    assert "duplicate" in {each.check for each in refused}
    assert "measures a run twice" in next(each.text for each in refused if each.check == "duplicate")


def test_parity_with_a_vector_that_departs(root):
    """The vector of a release is altered, which stands for an implementation that is."""
    folder, name = root / "tests" / "vectors", "tomesd__compute-merge.json"
    folder.mkdir(parents=True)
    vector = json.loads((VECTORS / name).read_text(encoding="utf-8"))
    (folder / name).write_text(json.dumps(vector), encoding="utf-8")
    check = next(each for each in checks.CHECKS if each.id == "parity")
    assert check.problem(None, make.record(method="tomesd"), known(root)) is None
    output = next(iter(vector["outputs"].values()))
    output["values"][0] += 1
    (folder / "tomesd__altered.json").write_text(json.dumps(vector), encoding="utf-8")
    assert "departs from its release" in check.problem(None, make.record(method="tomesd"), known(root))


def test_a_folder_of_something_else(mine, tmp_path):
    paths, _, asked = checked(mine, clone.of(mine, "jpeg").run[:12])
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.tex").write_text("mine")
    for out in (thesis, thesis / "chapter.tex"):
        with pytest.raises(submit.SubmissionError, match="is no submission"):
            submit.write(paths, out, asked)
    (thesis / submit.TEXT).write_text("also mine")
    with pytest.raises(submit.SubmissionError, match="is no submission"):
        submit.write(paths, thesis, asked)
    assert sorted(path.name for path in thesis.iterdir()) == ["chapter.tex", submit.TEXT]
    (tmp_path / "empty").mkdir()
    assert submit.write(paths, tmp_path / "empty", asked)


def test_a_failure_on_the_way_leaves_the_earlier_submission(mine, tmp_path, monkeypatch):
    paths, _, asked = checked(mine, clone.of(mine, "jpeg").run[:12])
    out = tmp_path / "submission"
    submit.write(paths, out, asked)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StorageError, match="No space left"):
        submit.write(paths, out, asked)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["abc", "zzzz", "0" * 64])
def test_a_name_of_no_record(mine, name):
    with pytest.raises(TokenmarkError, match="give at least 4 digits"):
        submit.found(Results(mine / "results"), [name])


def test_a_file_that_is_not_there(mine):
    with pytest.raises(RecordError, match="cannot be read"):
        checked(mine, "absent.json")
