"""What a branch may do to the records of its base."""

from datetime import datetime, timedelta

import pytest

from tests.tokenmark import clone
from tokenmark.checkout import Checkout, CheckoutError
from tokenmark.publish import history
from tokenmark.publish.subject import Known
from tokenmark.store import Results


def report(root, base="main"):
    results, checkout = Results(root / "results"), Checkout.around(root / "results")
    return history.check(checkout, results, base, Known(checkout, results.records))


def refusals(root, base="main"):
    return [(each.check, each.place.rpartition("/")[2].partition(".")[0]) for each in report(root, base).refusals]


def newer(record, **changes):
    """The same request, measured later with other sources."""
    later = (datetime.fromisoformat(record.started) + timedelta(hours=1)).isoformat(timespec="seconds")
    return clone.resealed(record, started=later, spec={"tokenmark": "9.9.9"}, durations={"all": 1.0}, **changes)


@pytest.fixture
def branch(root):
    clone.git(root, "switch", "--quiet", "--create", "branch")
    return root


def test_nothing_done(branch):
    found = report(branch)
    assert (found.refusals, found.checked) == ([], 0)


def test_without_a_base_all_are_asked(branch):
    found = report(branch, None)
    assert (found.refusals, found.checked, found.changes) == ([], 3, None)


def test_a_record_that_is_added(branch):
    record = clone.of(branch, "jpeg")
    other = clone.resealed(record, spec={"site": "b"}, durations={"all": 1.0})
    clone.put(branch, other)
    assert refusals(branch) == []  # before it is committed
    clone.commit(branch, "A record")
    found = report(branch)
    assert (found.refusals, found.checked, len(found.changes.added)) == ([], 1, 2)


def test_a_bad_record_that_is_added_is_asked_all(branch):
    other = clone.resealed(clone.of(branch, "jpeg"), spec={"site": "b", "implementation": "0" * 64})
    clone.put(branch, other)
    assert {check for check, _ in refusals(branch)} == {"implementation", "copy"}
    assert {check for check, _ in refusals(branch, None)} == {"copy"}


@pytest.mark.parametrize("committed", [False, True])
def test_a_changed_record(branch, committed):
    record = clone.of(branch, "jpeg")
    clone.put(branch, clone.valued(record, "psnr", value=record.value("psnr").value + 0.01))
    if committed:
        clone.commit(branch, "Better")
    (only,) = report(branch).refusals
    assert only.check == "changed"
    assert "git checkout" in only.text
    assert str(only).startswith(f"results/records/small/jpeg/{record.run}.json: changed: ")


def test_a_changed_picture(branch):
    path = Results(branch / "results").path(clone.of(branch, "jpeg").spec)
    path.with_suffix(".reconstructions.png").write_bytes(b"nicer")
    assert refusals(branch) == [("changed", path.stem)]


def test_a_record_that_became_another_kind_of_file(branch):
    path = Results(branch / "results").path(clone.of(branch, "jpeg").spec)
    data = path.read_bytes()
    path.unlink()
    (branch / "copy.json").write_bytes(data)
    path.symlink_to(branch / "copy.json")
    assert refusals(branch) == [("changed", path.stem)]


def test_a_record_that_is_a_link(branch):
    record = clone.resealed(clone.of(branch, "strided"), spec={"site": "b"}, durations={"finish": 600.0})
    path = clone.put(branch, record)
    path.replace(branch / "elsewhere.json")
    path.symlink_to(branch / "elsewhere.json")
    assert refusals(branch) == [("place", path.stem)]


def test_a_deleted_record(branch):
    record = clone.of(branch, "jpeg")
    for path in (branch / "results/records/small/jpeg").glob("*"):
        path.unlink()
    clone.commit(branch, "Less")
    assert refusals(branch) == [("deleted", record.run)]  # its picture goes with it
    clone.put(branch, newer(clone.resealed(record, pictures={})))
    assert {check for check, _ in refusals(branch)} == set()


def test_an_older_record_of_the_request_does_not_stand_for_a_deleted_one(branch):
    record = clone.of(branch, "jpeg")
    older = clone.resealed(
        record, started="2020-01-01T00:00:00+00:00", spec={"tokenmark": "0.0.1"}, durations={"all": 1.0}, pictures={}
    )
    for path in (branch / "results/records/small/jpeg").glob("*"):
        path.unlink()
    clone.put(branch, older)
    assert ("deleted", record.run) in refusals(branch)


def test_a_deleted_picture_of_a_record_that_stays(branch):
    path = Results(branch / "results").path(clone.of(branch, "jpeg").spec)
    path.with_suffix(".reconstructions.png").unlink()
    assert refusals(branch) == [("deleted", path.stem)]


def test_a_stray_file(branch):
    (branch / "results/records/small/notes.txt").write_text("mine")
    (branch / "results/records/small/jpeg/more.png").write_bytes(b"")
    assert refusals(branch) == [("stray", "more"), ("stray", "notes")]
    assert refusals(branch, None) == [("stray", "more"), ("stray", "notes")]


def test_what_the_base_did_since_is_not_the_branchs(branch):
    clone.git(branch, "switch", "--quiet", "main")
    clone.put(branch, clone.resealed(clone.of(branch, "jpeg"), spec={"site": "b"}, durations={"all": 1.0}))
    clone.commit(branch, "Others'")
    clone.git(branch, "switch", "--quiet", "branch")
    assert report(branch).checked == 0
    assert refusals(branch) == []


@pytest.mark.parametrize("base", ["absent", "", "--all", "HEAD~9"])
def test_a_base_that_is_no_commit(branch, base):
    with pytest.raises(CheckoutError, match="there is no commit"):
        report(branch, base)


def test_a_base_without_git(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results" / "records").mkdir(parents=True)
    with pytest.raises(CheckoutError, match="there is no commit"):
        report(tmp_path)
    assert report(tmp_path, None).refusals == []
