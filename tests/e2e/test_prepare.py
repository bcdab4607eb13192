"""`tokenmark prepare` as a process: killed, interrupted, twice at once, and mistakes in one line."""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.harness import LONGEST, Place, Running
from tests.tokenmark.data import made_imagenet as made

NAME = "imagenet-val-96-adm"
ROW = 96 * 96 * 3


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """480 pictures in class folders: 15 parts. Only to be read."""
    contents = [made.rgb(seed, 240 + seed, 180) for seed in range(12)]
    files = tuple(made.File(1 + 101 * place, contents[place % 12]) for place in range(480))
    return made.write_class_folders(tmp_path_factory.mktemp("made") / "val", files)


def arguments(source: Path, *more: str) -> tuple[str, ...]:
    return ("prepare", "imagenet-val", "--source", str(source), "--size", "96", "--data", "made", *more)


def published(place: Place) -> Path:
    return place.folder / "made" / NAME / "val"


@pytest.fixture(scope="module")
def undisturbed(server, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(server, tmp_path_factory.mktemp("undisturbed"), Path("unused"))
    out = place.call(*arguments(source, "--allow-subset", "--workers", "2")).well()
    assert "480/480 images" in out
    assert "images/s, about 0 s left" in out
    assert "A subset, 480 of 50,000 images: its records are marked as not comparable." in out
    return place


def under_way(place: Place, source: Path) -> Running:
    """A run of which something is done, but not all."""
    running = place.start(*arguments(source, "--allow-subset", "--workers", "1"))
    journal = place.folder / "made" / f".{NAME}.partial" / "journal.jsonl"
    running.until(journal)
    end = time.monotonic() + LONGEST
    while journal.exists() and journal.read_bytes().count(b"\n") < 2:
        assert time.monotonic() < end, "it hangs"
        time.sleep(0.002)
    assert journal.exists(), "it was too quick for this test"
    return running


def same(place: Place, other: Place) -> None:
    for name in ("images.npy", "labels.npy", "files.tsv", "left-out.txt", "manifest.json"):
        assert (published(place) / name).read_bytes() == (published(other) / name).read_bytes()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, None), (signal.SIGINT, 130)], ids=["kill", "ctrl-c"])
def test_a_run_that_was_stopped_goes_on(place: Place, undisturbed: Place, source: Path, number, status):
    running = under_way(place, source)
    running.send(number)
    done = running.wait()
    assert status is None or done.status == status
    assert "Traceback" not in done.out + done.err
    assert not published(place).exists()
    journal = (place.folder / "made" / f".{NAME}.partial" / "journal.jsonl").read_text().splitlines()
    finished = len(journal) - 1
    assert 0 < finished < 480
    out = place.call(*arguments(source, "--allow-subset", "--workers", "2")).well()
    assert f"goes on: {finished} of 480 images were done before" in out
    same(place, undisturbed)


def test_of_two_runs_the_second_ends_at_once(place: Place, undisturbed: Place, source: Path):
    running = under_way(place, source)
    running.send(signal.SIGSTOP)
    try:
        place.call(*arguments(source, "--allow-subset")).mistake(f"another run is preparing {NAME} in made", "--data")
    finally:
        running.send(signal.SIGCONT)
    running.wait().well()
    same(place, undisturbed)


def test_what_is_prepared_is_left_alone(undisturbed: Place, source: Path):
    before = (published(undisturbed) / "images.npy").stat().st_mtime_ns
    out = undisturbed.call(*arguments(source, "--allow-subset")).well()
    assert f"made/{NAME} is there already, and unaltered (a subset, 480 of 50,000)" in out
    assert (published(undisturbed) / "images.npy").stat().st_mtime_ns == before
    undisturbed.call(*arguments(source)).mistake("holds a subset, 480 of 50,000: delete it")


def test_mistakes(place: Place, source: Path):
    place.call(*arguments(source)).mistake("49,520 missing", "made/imagenet-val-96-adm.problems.txt", "--allow-subset")
    place.call(*arguments(source, "--limit", "5")).mistake("--limit makes a subset", "--allow-subset")
    place.call(*arguments(source, "--crop", "amd")).mistake("--crop", "adm")
    place.call(*arguments(source, "--limit", "0")).mistake("--limit")
    place.call(*arguments(place.folder / "absent")).mistake("there is no", "--source takes a tar")
    place.call("prepare", "imagenet", "--source", str(source)).mistake("imagenet-val")
    place.call("prepare", "imagenet-val").mistake("--source")
    assert not published(place).exists()


def test_a_disk_that_is_full(place: Place, source: Path):
    small = "import shutil; shutil.disk_usage = lambda _: __import__('types').SimpleNamespace(free=1000)"
    place.call(*arguments(source, "--allow-subset"), before=small).mistake("GB are needed in made", "GB are free")


def test_records_say_that_they_are_of_a_subset(place: Place):
    """A data set that was marked as a subset after it was made: its warning goes through to the record."""
    import shutil

    from tests.e2e.harness import JPEG, write_suite

    original, place.data = place.data, place.folder / "data"
    shutil.copytree(original, place.data)
    path = place.data / "digits-32" / "val" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"subset": {"of": 1797, "left_out": 1297, "left_out_sha256": "0" * 64}}))
    out = place.run(write_suite(place.folder / "small.toml", JPEG)).well()
    warning = "not comparable: digits-32/val is a subset, 500 of 1,797 images"
    assert warning in out
    assert place.records()["jpeg"]["warnings"] == [warning]
