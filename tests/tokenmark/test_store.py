"""The results folder: records as files, the lock, and whose they are."""

import os
import signal
import subprocess
import sys

import pytest

from tests.tokenmark import make
from tokenmark.errors import RecordError, StorageError
from tokenmark.store import Results

HOLDER = (
    "import sys; from pathlib import Path; from tokenmark.store import Results\n"
    "with Results(Path(sys.argv[1])).locked():\n"
    "    print('held', flush=True); sys.stdin.read()\n"
)


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results")


@pytest.fixture
def written(results):
    record = make.record(pictures={"shown": b"a picture"})
    return record, results.write(record, {"shown": b"a picture"})


def test_what_is_written_is_found(results, written):
    record, path = written
    assert path == results.root / "records" / "made" / "jpeg" / f"{record.run}.json"
    assert results.find(record.spec) == record
    assert results.all() == [record]
    assert (path.parent / f"{record.run}.shown.png").read_bytes() == b"a picture"
    assert results.find(make.spec(seed=9)) is None


def test_all_are_in_the_order_of_their_paths(results):
    records = [make.record(seed=seed, method=method) for seed in (1, 2) for method in ("webp", "jpeg")]
    for record in records:
        results.write(record, {})
    assert results.paths() == sorted(results.path(record.spec) for record in records)
    assert {record.run for record in results.all()} == {record.run for record in records}


def test_a_folder_without_records(results):
    assert results.paths() == []
    assert results.all() == []


def test_writing_forgets_the_partial_state(results):
    record = make.record()
    partial, other = results.partial(record.spec), results.partial(make.spec(seed=9))
    for folder in (partial, other):
        folder.mkdir(parents=True)
        (folder / "state.npz").write_bytes(b"state")
    results.write(record, {})
    assert not partial.exists()
    assert other.exists()


def test_a_failed_write_keeps_the_partial_state(results):
    record = make.record()
    results.partial(record.spec).mkdir(parents=True)
    results.records.write_bytes(b"a file where a folder should be")
    with pytest.raises(StorageError):
        results.write(record, {})
    assert results.partial(record.spec).exists()


def test_damaged_records(results, written):
    record, path = written
    whole = path.read_bytes()
    for harmed in (whole.replace(b"27.5", b"28.5"), whole.replace(record.seal.encode(), b"0" * 64), whole[:-20], b""):
        assert harmed != whole
        path.write_bytes(harmed)
        for read in (lambda: results.find(record.spec), results.all):
            with pytest.raises(RecordError, match=str(path)):
                read()
    path.write_bytes(whole)
    assert results.find(record.spec) == record


def test_a_renamed_record(results, written):
    record, path = written
    path.rename(path.with_name(f"{'0' * 64}.json"))
    with pytest.raises(RecordError, match=f"does not have the name of its run, {record.run}.json"):
        results.all()


@pytest.mark.parametrize("data", [b"another picture", None])
def test_a_picture_that_was_altered_or_lost(results, written, data):
    record, path = written
    picture = path.parent / record.pictures["shown"].file
    picture.unlink()
    if data is not None:
        picture.write_bytes(data)
    with pytest.raises(RecordError, match=r"shown\.png .*missing or altered"):
        results.find(record.spec)


def test_a_record_that_cannot_be_read(results):
    place = results.path(make.spec())
    place.mkdir(parents=True)
    with pytest.raises(RecordError, match="cannot be read"):
        results.all()


def test_a_second_holder_is_refused_until_the_first_ends(results):
    refusal = pytest.raises(StorageError, match="another run is writing to")
    with results.locked(), refusal, Results(results.root).locked():
        pass
    with Results(results.root).locked():
        pass


def test_the_lock_is_freed_by_an_error(results):
    with pytest.raises(ZeroDivisionError), results.locked():
        raise ZeroDivisionError
    with results.locked():
        pass


def test_the_lock_goes_with_its_process_however_it_ends(results):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(results.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match="another run"), results.locked():
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    with results.locked():
        pass


def test_a_place_that_cannot_be_locked(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError, match="cannot write"), Results(root).locked():
            pass


def test_site_is_drawn_once(results, tmp_path, monkeypatch):
    monkeypatch.delenv("TOKENMARK_SITE", raising=False)
    drawn = results.site()
    assert drawn.startswith("site-")
    assert Results(results.root).site() == drawn
    assert Results(tmp_path / "another").site() != drawn
    monkeypatch.setenv("TOKENMARK_SITE", "our-cluster")
    assert results.site() == "our-cluster"
    monkeypatch.delenv("TOKENMARK_SITE")
    assert results.site() == drawn
