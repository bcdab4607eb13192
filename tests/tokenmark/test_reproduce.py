"""A run once more: in this process, by another one, and what is said of its values."""

import io
import shutil
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.long import takes_long
from tests.tokenmark import clone, make
from tokenmark import pinned, reproduce
from tokenmark.checkout import Checkout
from tokenmark.errors import MissingError, UnknownNameError
from tokenmark.records import Value
from tokenmark.shelf import Shelf
from tokenmark.store import Results

ROOT = Path(__file__).parents[2]


def verdicts(one, other):
    return {each.name: each.verdict for each in reproduce.compared(one, other).values}


def value(name, number, **more):
    return Value(name=name, value=number, n=500, **more)


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        (value("rfid", 1.0, se=0.1), value("rfid", 1.0, se=0.1), "equal"),
        (value("rfid", 1.0, se=0.1), value("rfid", 1.0, se=0.1 + 1e-12), "within errors"),
        (value("rfid", 1.0, se=0.1), value("rfid", 1.0 + 1e-9, se=0.1), "within errors"),
        (value("rfid", 1.0, se=0.1), value("rfid", 1.3, se=0.1), "differs"),
        (value("macs", 1e6), value("macs", 1.1e6), "differs"),
        (value("codebook_use", 0.5), value("codebook_use", 0.501), "within errors"),
        (value("gfid_infinite", 0.5), value("gfid_infinite", 0.6), "within errors"),
        (
            value("images_per_second", 9.0, interval=(8, 10)),
            value("images_per_second", 10.0, interval=(9, 11)),
            "within errors",
        ),
        (
            value("images_per_second", 9.0, interval=(8, 10)),
            value("images_per_second", 19.0, interval=(18, 20)),
            "differs",
        ),
        (
            value("images_per_second", 9.0, interval=(8, 10)),
            value("images_per_second", 9.0, interval=(8, 10)),
            "within errors",
        ),
        (value("latency_p50_ms", 9.0), value("latency_p50_ms", 90.0), "not compared"),
        (value("latency_p50_ms", 9.0), value("latency_p50_ms", 9.0), "not compared"),
    ],
)
def test_verdicts(one, other, verdict):
    assert verdicts(make.record([one]), make.record([other])) == {one.name: verdict}


def test_a_value_that_only_one_has():
    outcome = reproduce.compared(make.record(), make.record(make.RECONSTRUCTED[:1]))
    assert [each.verdict for each in outcome.values] == ["equal", "differs", "differs"]
    assert not outcome.held
    assert outcome.line() == "differs in psnr, ssim (1 equal, 2 differs)"


def test_timings_of_another_device_are_not_compared():
    one, other = make.classified(), make.classified(device="cuda: Made")
    found = verdicts(one, other)
    assert found["speedup_best"] == found["images_per_second"] == "not compared"
    assert found["top1"] == "equal"


def test_lines():
    record = make.record()
    assert reproduce.compared(record, record).line() == "equal: all 3 values, bit for bit"
    near = make.record([value("rfid", 12.4, se=0.4), *make.RECONSTRUCTED[1:]])
    outcome = reproduce.compared(record, near)
    assert outcome.line() == "within errors (2 equal, 1 within errors)"
    assert outcome.held
    out = io.StringIO()
    reproduce.show(outcome, Console(file=out, width=100, highlight=False))
    (row,) = [line.split() for line in out.getvalue().splitlines() if "rfid" in line]
    assert row == ["rfid", "12.3457", "12.4", "within", "errors"]


@pytest.fixture
def here(root, digits_folder, tmp_path, monkeypatch):
    """This process as the environment of the clone's records."""
    monkeypatch.setenv("TOKENMARK_LOCK", str(root / "locks" / "bench.txt"))
    monkeypatch.chdir(root)
    return reproduce.Place(
        folder=tmp_path / "again",
        work=tmp_path / "work",
        device=torch.device("cpu"),
        data=digits_folder,
        shelf=Shelf(tmp_path / "weights"),
        suites=root / "suites",
    )


def again(record, place, said=None):
    return reproduce.again(record, place, Checkout.around(place.suites), (said if said is not None else []).append)


def test_a_record_comes_out_equal(root, here):
    record = clone.of(root, "jpeg")
    before = {path: path.read_bytes() for path in (root / "results").rglob("*") if path.is_file()}
    said = []
    outcome = reproduce.compared(record, again(record, here, said))
    assert outcome.line() == "equal: all 5 values, bit for bit"
    assert said == []
    assert {path: path.read_bytes() for path in (root / "results").rglob("*") if path.is_file()} == before
    assert [path.stem for path in Results(here.folder).paths()] == [record.run]


def test_an_altered_value_that_was_sealed_again_differs(root, here):
    record = clone.valued(clone.of(root, "jpeg"), "psnr", value=40.0)
    outcome = reproduce.compared(record, again(record, here))
    assert outcome.line() == "differs in psnr (4 equal, 1 differs)"
    assert not outcome.held


def test_threads_are_the_records(root, here):
    record = clone.resealed(clone.of(root, "jpeg"), environment={"threads": 1})
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        assert again(record, here).environment.threads == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("spec", "environment", "words"),
    [
        ({"implementation": "0" * 64}, {}, "the source of jpeg is another today"),
        ({"method": "jpgg"}, {}, "there is no method jpgg here"),
        ({}, {"lock_sha256": "0" * 64}, "it was pinned by bench.txt, and this environment is by bench.txt"),
        ({"batch_size": 7}, {}, "today's jpeg/q10 differs from the record's in batch_size"),
        ({"variant": "q95"}, {}, "suite small plans no run jpeg/q95 today"),
    ],
)
def test_what_needs_its_own_environment(root, here, spec, environment, words, monkeypatch):
    """Which is not made here, for there is no such commit."""
    record = clone.resealed(clone.of(root, "jpeg"), spec=spec, environment={**environment, "commit": "0" * 40})
    said = []
    with pytest.raises(reproduce.ReproduceError, match="commit 000000000000 is not in") as caught:
        again(record, here, said)
    assert words in said[0]
    assert words in str(caught.value)


def test_an_environment_that_was_not_pinned(root, here, monkeypatch):
    record = clone.of(root, "jpeg")
    monkeypatch.delenv("TOKENMARK_LOCK")
    free = clone.resealed(record, environment={"lock": None, "lock_sha256": None})
    assert reproduce.another_environment(free) is None
    other = clone.resealed(free, environment={"libraries": {"torch": "0.1"}})
    assert reproduce.another_environment(other) == "its libraries have other versions"
    with pytest.raises(reproduce.ReproduceError, match="was not pinned, so it cannot be made again"):
        again(other, here)


def test_a_suite_that_is_gone(root, here):
    (here.suites / "small.toml").unlink()
    with pytest.raises(UnknownNameError, match="unknown suite 'small'"):
        again(clone.of(root, "jpeg"), here)


def test_what_others_publish_and_is_not_here(root, here):
    """The suite's protocol is another by now, of which neither weights nor data are here."""
    suite = here.suites / "small.toml"
    text = suite.read_text(encoding="utf-8")
    suite.write_text(text.replace('"mini"', '"llamagen-val-adm"', 1), encoding="utf-8")
    with pytest.raises(MissingError, match="get it: `tokenmark weights"):
        again(clone.of(root, "jpeg"), here)


def test_a_folder_to_keep_it_in(tmp_path):
    assert reproduce.empty(tmp_path / "new") == tmp_path / "new"
    assert reproduce.empty(tmp_path) == tmp_path
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path, tmp_path / "file"):
        with pytest.raises(reproduce.ReproduceError, match="is not empty"):
            reproduce.empty(place)


@pytest.fixture
def whole(root):
    """The clone with this repository's sources, as if they had been there at its last commit."""
    for folder in ("tokenmark", "reference_impls"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    head = clone.commit(root, "Sources")
    record = clone.of(root, "jpeg")
    return root, clone.resealed(record, environment={"commit": head})


@takes_long
def test_by_another_process(whole, tmp_path, digits_folder):
    """The command line of a checkout, run by this very interpreter: what is installed for it is tried by hand only."""
    root, record = whole
    other = pinned.Pinned(root, Path(sys.executable), root / "locks" / "bench.txt")
    place = tmp_path / "again"
    new = other.run(record, place, digits_folder, tmp_path / "weights", "cpu")
    assert reproduce.compared(record, new).held
    assert new.spec.site == record.spec.site
    assert new.environment.lock_sha256 == record.environment.lock_sha256
    assert new.environment.commit == record.environment.commit
    assert [each.spec.title for each in Results(place).all()] == ["jpeg/q10"]
    unknown = clone.resealed(record, spec={"batch_size": 7})
    with pytest.raises(pinned.PinnedError, match="did not measure this experiment"):
        other.run(unknown, tmp_path / "none", digits_folder, tmp_path / "weights", "cpu")


def test_what_cannot_be_made_again(root, tmp_path, monkeypatch):
    record, checkout = clone.of(root, "jpeg"), Checkout.around(root)
    cases = [
        ({"commit": None}, "its commit is not known"),
        ({"dirty": True}, "no commit holds what ran"),
        ({"lock": None}, "was not pinned"),
        ({"commit": "0" * 40}, "git fetch --unshallow"),
        ({"lock": "own.txt"}, "does not have the own.txt that pinned it"),
        ({"lock_sha256": "0" * 64}, "does not have the bench.txt that pinned it"),
    ]
    monkeypatch.setattr(shutil, "which", lambda name: name)  # uv is looked for before all of these, and not used
    for environment, words in cases:
        bad = clone.resealed(record, environment=environment)
        with pytest.raises(pinned.PinnedError, match=words), pinned.made(bad, checkout, tmp_path, str):
            pytest.fail("it was made")
    for tool in ("git", "uv"):
        monkeypatch.setattr(shutil, "which", lambda name, missing=tool: None if name == missing else name)
        with pytest.raises(pinned.PinnedError, match=f"install {tool}"), pinned.made(record, checkout, tmp_path, str):
            pytest.fail("it was made")


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv, which makes pinned environments, is not installed")
def test_what_cannot_be_installed_leaves_nothing(root, tmp_path, monkeypatch):
    """The clone's lock pins a torch that does not exist."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    record, said = clone.of(root, "jpeg"), []
    making = pinned.made(record, Checkout.around(root), tmp_path, said.append)
    with pytest.raises(pinned.PinnedError, match="`uv "), making:
        pytest.fail("it was made")
    assert len(said) == 2
    assert not (tmp_path / "tree").exists()
    assert len(clone.git(root, "worktree", "list").splitlines()) == 1
