"""From a measured record to a pull request, and back: the verbs as people and CI call them, each as a process."""

import json
import shutil
from pathlib import Path

import pytest

from tests.e2e.harness import JPEG, ROOT, Place, write_suite
from tests.tokenmark import clone
from tokenmark.records import parse
from tokenmark.store import Results


@pytest.fixture
def cloned(finished: Place, place: Place) -> Path:
    """A clone with one measured record of jpeg, on a branch of its own; it says that it comes from a clean commit."""
    root = place.folder / "clone"
    head = clone.begin(root)
    write_suite(root / "suites" / "small.toml", JPEG)
    (source,) = (finished.results / "records" / "small" / "jpeg").glob("*.json")
    record = parse(source.read_bytes(), "jpeg")
    lock = clone.hashlib.sha256(clone.LOCK).hexdigest()
    environment = {"commit": head, "dirty": False, "lock": "bench.txt", "lock_sha256": lock}
    target = root / "results" / "records" / "small" / "jpeg"
    target.mkdir(parents=True)
    shutil.copyfile(next(source.parent.glob("*.png")), target / f"{record.run}.reconstructions.png")
    (target / source.name).write_bytes(clone.resealed(record, environment=environment).to_json())
    (root / ".gitignore").write_text("/results/\n")
    clone.commit(root, "A suite of one job")
    (root / ".gitignore").unlink()
    clone.git(root, "switch", "--quiet", "--create", "branch")
    return root


def inside(place: Place, root: Path) -> Place:
    """The same place, its processes started in the clone."""
    return Place(place.server, root, place.data, {**place.env, "HOME": str(place.folder)})


def test_a_record_becomes_a_pull_request(place: Place, cloned: Path):
    here, record = inside(place, cloned), clone.of(cloned, "jpeg")
    output = here.call("submit", record.run[:12]).well()
    assert "1 record in submission, all checks passed" in output
    assert "git switch --create" in output
    assert "gh pr create" in output
    assert record.run[:12] in (cloned / "submission" / "pull-request.md").read_text(encoding="utf-8")
    (copied,) = Results(cloned / "submission" / "results").all()
    assert copied == record
    shutil.rmtree(cloned / "submission")
    clone.commit(cloned, "A record")
    assert "1 records checked that differ from" in here.call("check-results", "--base", "main").well()
    assert "1 records checked: all well." in here.call("check-results").well()
    listed = here.call("check-results", "--list").well()
    assert {line.split()[0] for line in listed.splitlines()} >= {"schema", "seal", "agreement", "stray"}


def test_what_is_refused(place: Place, cloned: Path):
    here, record = inside(place, cloned), clone.of(cloned, "jpeg")
    bad = clone.valued(record, "ssim", value=2.0)
    path = clone.put(cloned, bad)
    done = here.call("submit", str(path))
    assert "ssim cannot be 2" in done.mistake(f"{record.run}.json: values: ")
    assert not (cloned / "submission").exists()
    done = here.call("check-results", "--base", "main")
    assert (done.status, done.err) == (1, "")
    lines = done.out.splitlines()
    assert lines[0].startswith(f"results/records/small/jpeg/{record.run}.json: values: ssim cannot be 2")
    assert lines[-1].endswith("1 refused.")
    assert len(lines) == 2


def test_mistakes_of_use(place: Place, cloned: Path):
    here = inside(place, cloned)
    here.call("check-results", "--base", "absent").mistake("there is no commit 'absent'")
    here.call("check-results", "--results", "absent").mistake("there is no folder absent")
    here.call("submit", "zzzz").mistake("no record in results/records begin with 'zzzz'")
    here.call("reproduce", "zzzz").mistake("no record in results/records begin with 'zzzz'")
    here.call("compare", "zzzz", "main").mistake("no device is called so; devices: cpu")
    here.call("run", "small", "--run", "zzzz", "--data", str(place.data)).mistake("unknown run 'zzzz'")


def test_reproduced_and_not(place: Place, cloned: Path):
    here, record = inside(place, cloned), clone.of(cloned, "jpeg")
    here.env["TOKENMARK_LOCK"] = str(cloned / "locks" / "bench.txt")
    common = ("--data", str(place.data))
    output = here.call("reproduce", record.run[:8], *common, "--keep", "kept").well()
    assert output.splitlines()[-1] == f"jpeg/q50, run {record.run[:12]}: equal: all 5 values, bit for bit"
    assert [each.run for each in Results(cloned / "kept").all()] == [record.run]
    here.call("reproduce", record.run[:8], *common, "--keep", "kept").mistake("kept is not empty")
    path = clone.put(cloned, clone.valued(record, "rfid", value=0.0))
    done = here.call("reproduce", str(path), *common)
    assert done.status == 1
    assert done.out.splitlines()[-1].endswith("differs in rfid (4 equal, 1 differs)")
    both = json.loads(here.call("compare", str(path), "kept/records/small/jpeg/" + path.name, "--json").well())
    (rfid,) = [value for value in both["pairs"][0]["values"] if value["name"] == "rfid"]
    assert (rfid["a"], rfid["b"], rfid["beyond_errors"]) == (0.0, record.value("rfid").value, True)


def test_one_run_of_a_suite(place: Place, cloned: Path):
    here, record = inside(place, cloned), clone.of(cloned, "jpeg")
    suite = write_suite(cloned / "suites" / "small.toml", JPEG, JPEG.replace("q50", "q10"))
    output = here.run(suite, "--run", record.spec.experiment[:12], "--results", str(place.folder / "one")).well()
    assert "1 measured, 0 already there" in output
    assert [each.spec.variant for each in Results(place.folder / "one").all()] == ["q50"]


def test_ci_makes_these_checks():
    text = (ROOT / ".github" / "workflows" / "results.yml").read_text(encoding="utf-8")
    assert "nox -s tokenmark -- check-results --base" in text
    assert '"results/records/**"' in text
    assert "fetch-depth: 0" in text
