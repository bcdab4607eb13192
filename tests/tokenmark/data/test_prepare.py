"""Preparing a made ImageNet: the same bytes from every source, damage told file by file, nothing half published."""

import collections
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from tests.tokenmark.data import made_imagenet as made
from tokenmark.data import pool, prepared
from tokenmark.data.crops import CROPS
from tokenmark.data.decode import decode
from tokenmark.data.imagenet import COLLECTIONS, wnids
from tokenmark.data.partial import Partial
from tokenmark.data.prepare import Request, prepare
from tokenmark.errors import DataError, StorageError, TokenmarkError

SIDE = 24
NAME = f"imagenet-val-{SIDE}-adm"


class Heard:
    """A watcher that remembers."""

    def __init__(self):
        self.notes, self.phases, self.started, self.done = [], [], None, 0

    def phase(self, text):
        self.phases.append(text)

    def start(self, total, done):
        self.started = (total, done)

    def advance(self, done):
        self.done = done

    def note(self, text):
        self.notes.append(text)


def request(source, data, **changes):
    facts = {"collection": COLLECTIONS["imagenet-val"], "side": SIDE, "workers": 1, "allow_subset": True}
    return Request(source=source, data=data, **{**facts, **changes})


def run(source, data, **changes):
    """Prepare, and open what was published."""
    heard = Heard()
    wanted = request(source, data, **changes)
    prepare(wanted, heard)
    return prepared.load(data / wanted.name / "val"), heard


@pytest.fixture(scope="module")
def undisturbed(forms, tmp_path_factory):
    """What one run from class folders left. Only to be read."""
    data = tmp_path_factory.mktemp("undisturbed")
    run(forms["class folders"], data)
    return data / NAME


@pytest.mark.parametrize("kind", made.KINDS)
def test_every_kind_of_source_gives_the_same_bytes(forms, kit, undisturbed, tmp_path, kind):
    labels = kit if kind in ("tar", "flat folder") else None
    data, heard = run(forms[kind], tmp_path / "data", labels=labels)
    place = tmp_path / "data" / NAME / "val"
    for name in ("images.npy", "labels.npy", "files.tsv", "left-out.txt"):
        assert (place / name).read_bytes() == (undisturbed / "val" / name).read_bytes()
    assert data.manifest.sha256 == prepared.load(undisturbed / "val").manifest.sha256
    assert data.manifest.origin.kind == kind.removeprefix("hub's ")
    assert (heard.started, heard.done) == ((22, 0), 22)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [f".{NAME}.lock", NAME]


@pytest.mark.parametrize("crop", sorted(CROPS))
def test_rows_are_the_crops_of_the_files_in_the_order_of_their_names(forms, tmp_path, crop):
    data, _ = run(forms["class folders"], tmp_path, crop=crop, workers=2)
    expected = [CROPS[crop].apply(decode(file.data)[0], SIDE) for file in made.files()]
    assert (data.images == np.stack(expected)).all()
    assert data.labels.tolist() == [file.label for file in made.files()]
    assert (data.manifest.name, data.manifest.crop) == (f"imagenet-val-{SIDE}-{crop}", f"{crop}-{SIDE}")


def test_the_manifest_tells_what_was_found_and_left_out(undisturbed):
    data = prepared.load(undisturbed / "val")
    manifest = data.manifest
    kinds = collections.Counter(decode(file.data)[1] for file in made.files())
    assert manifest.origin.found == kinds
    assert kinds["JPEG CMYK"] == kinds["PNG RGBA"] == 1
    assert (manifest.subset.of, manifest.subset.left_out, manifest.subset.limit) == (50_000, 49_978, None)
    assert (data.classes, sum(manifest.class_counts)) == (1000, 22)
    assert data.warnings == [f"not comparable: {NAME}/val is a subset, 22 of 50,000 images"]
    left_out = (undisturbed / "val" / "left-out.txt").read_text().splitlines()
    assert len(left_out) == 49_978
    rows = [line.split("\t") for line in (undisturbed / "val" / "files.tsv").read_text().splitlines()]
    assert [row[0] for row in rows] == [file.name for file in made.files()]


def test_files_that_cannot_be_read_are_all_named_and_nothing_is_published(forms, tmp_path, undisturbed):
    source = tmp_path / "source"
    shutil.copytree(forms["class folders"] / "val", source, ignore=lambda folder, names: [])
    paths = [source / file.wnid / file.name for file in made.files()]
    whole = {path: path.read_bytes() for path in paths}
    paths[2].write_bytes(whole[paths[2]][:-40])
    paths[5].write_bytes(b"")
    paths[9].write_bytes(b"<html>")
    paths[11].unlink()
    paths[11].symlink_to(tmp_path / "nowhere")
    paths[20].write_bytes(whole[paths[20]][: len(whole[paths[20]]) // 2])
    with pytest.raises(
        DataError, match=r"5 unreadable \(.*nothing was published.*run the same command again"
    ) as caught:
        run(source, tmp_path / "data")
    report = (tmp_path / "data" / f"{NAME}.problems.txt").read_text().splitlines()
    assert [line.split("\t")[1].split(": ")[0] for line in report] == [paths[i].name for i in (2, 5, 9, 11, 20)]
    for line, why in zip(report, ("truncated", "it is empty", "no JPEG or PNG", "it cannot be read", ""), strict=True):
        assert why in line
    assert str(tmp_path / "data" / f"{NAME}.problems.txt") in str(caught.value)
    assert not (tmp_path / "data" / NAME).exists()
    for path in paths:
        path.unlink()
        path.write_bytes(whole[path])
    data, heard = run(source, tmp_path / "data")
    assert heard.started == (22, 17)  # only the five are read again
    assert data.manifest.sha256 == prepared.load(undisturbed / "val").manifest.sha256
    assert not (tmp_path / "data" / f"{NAME}.problems.txt").exists()


def test_a_part_needs_the_flag(forms, tmp_path):
    with pytest.raises(DataError, match=r"is not the whole ImageNet validation set .*49,978 missing.*--allow-subset"):
        run(forms["class folders"], tmp_path / "data", allow_subset=False)
    report = (tmp_path / "data" / f"{NAME}.problems.txt").read_text()
    assert report.count("missing\t") == 49_978
    with pytest.raises(DataError, match="--limit makes a subset"):
        run(forms["class folders"], tmp_path / "data", allow_subset=False, limit=3)


def test_no_flag_excuses_a_name_that_comes_twice(forms, tmp_path):
    source = made.write_class_folders(tmp_path / "source", made.files()[:4])
    file = made.files()[0]
    (source / wnids()[(file.label + 1) % 1000] / file.name).write_bytes(file.data)
    with pytest.raises(DataError, match=rf"is ambiguous: 1 named twice \({file.name}\)"):
        run(source, tmp_path / "data")


def test_a_source_without_labels_says_what_to_give(forms, tmp_path):
    with pytest.raises(DataError, match=r"have no labels: give --labels the devkit"):
        run(forms["flat folder"], tmp_path)


def test_labels_beside_the_source_are_found(kit, tmp_path, undisturbed):
    made.pack_devkit(kit, tmp_path / "ILSVRC2012_devkit_t12.tar.gz")
    data, heard = run(made.write_flat(tmp_path / "val", made.files()), tmp_path / "data")
    assert heard.notes == [f"labels are read from {tmp_path / 'ILSVRC2012_devkit_t12.tar.gz'}"]
    assert data.manifest.sha256 == prepared.load(undisturbed / "val").manifest.sha256


def test_labels_that_contradict_class_folders(forms, tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("".join(f"{wnids()[(made.label_of(number) + 1) % 1000]}\n" for number in range(1, 50_001)))
    with pytest.raises(DataError, match="22 labelled otherwise by --labels"):
        run(forms["class folders"], tmp_path / "data", labels=path)


def test_a_limit_takes_classes_in_turns(forms, tmp_path):
    data, _ = run(forms["class folders"], tmp_path, limit=5)
    assert len(data) == 5
    assert len(set(data.labels.tolist())) == 5
    assert data.manifest.subset.limit == 5
    assert (tmp_path / NAME / "val" / "left-out.txt").read_text().count("over the limit") == 17
    with pytest.raises(DataError, match=r"holds a subset, 5 of 50,000: delete it to prepare something else"):
        run(forms["class folders"], tmp_path, limit=6)
    with pytest.raises(DataError, match="holds a subset"):
        run(forms["class folders"], tmp_path, allow_subset=False)


def test_what_is_there_is_checked_and_left_alone(forms, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / NAME)
    before = (tmp_path / NAME / "val" / "images.npy").stat().st_mtime_ns
    _, heard = run(tmp_path / "no source is needed", tmp_path)
    assert "is there already" in heard.notes[0]
    assert (tmp_path / NAME / "val" / "images.npy").stat().st_mtime_ns == before
    with (tmp_path / NAME / "val" / "images.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x07")
    with pytest.raises(DataError, match=r"images.npy is missing, truncated or altered"):
        run(forms["class folders"], tmp_path)


class StoppedError(Exception):
    """Stands for whatever ends a run."""


def begin(source, data, parts=1, **changes):
    """A run that ends after so many parts."""

    class Impatient(Heard):
        def advance(self, done):
            super().advance(done)
            nonlocal parts
            parts -= 1
            if parts == 0:
                raise StoppedError

    with pytest.raises(StoppedError):
        prepare(request(source, data, **changes), Impatient())
    return data / f".{NAME}.partial"


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr("tokenmark.data.sources.base.TOGETHER", 4)


@pytest.mark.usefixtures("small_parts")
def test_a_stopped_run_goes_on_without_repeating(forms, undisturbed, tmp_path):
    partial = begin(forms["class folders"], tmp_path, parts=2)
    assert not (tmp_path / NAME).exists()
    written = {json.loads(line)[0] for line in (partial / "journal.jsonl").read_text().splitlines()[1:]}
    data, heard = run(forms["class folders"], tmp_path)
    assert heard.started == (22, len(written)) == (22, 8)
    assert data.manifest.sha256 == prepared.load(undisturbed / "val").manifest.sha256
    assert (tmp_path / NAME / "val" / "files.tsv").read_bytes() == (undisturbed / "val" / "files.tsv").read_bytes()


HARMS = {
    "row lost": lambda journal, images: images.write_bytes(
        images.read_bytes()[: -22 * SIDE * SIDE * 3] + bytes(22 * SIDE * SIDE * 3)
    ),
    "line cut off": lambda journal, images: journal.write_bytes(journal.read_bytes()[:-25]),
    "line of nonsense": lambda journal, images: journal.write_text(journal.read_text() + '[1, "x"]\nnull\n{}\n'),
    "journal lost": lambda journal, images: journal.unlink(),
    "journal is no text": lambda journal, images: journal.write_bytes(b"\xff\xfe\n"),
    "array lost": lambda journal, images: images.unlink(),
    "array cut off": lambda journal, images: images.write_bytes(images.read_bytes()[:5000]),
}


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("harm", sorted(HARMS))
def test_what_an_earlier_run_left_is_believed_only_where_it_holds(forms, undisturbed, tmp_path, harm):
    partial = begin(forms["class folders"], tmp_path, parts=3)
    HARMS[harm](partial / "journal.jsonl", partial / "data" / "val" / "images.npy")
    data, _ = run(forms["class folders"], tmp_path)
    assert data.manifest.sha256 == prepared.load(undisturbed / "val").manifest.sha256


@pytest.mark.usefixtures("small_parts")
def test_another_request_does_not_go_on_with_it(forms, tmp_path):
    begin(forms["class folders"], tmp_path, parts=2)
    _, heard = run(forms["class folders"], tmp_path, limit=9)
    assert heard.started == (9, 0)


def test_two_runs_at_the_same_time(forms, tmp_path):
    with FileLock(tmp_path / f".{NAME}.lock"), pytest.raises(StorageError, match=f"another run is preparing {NAME}"):
        run(forms["class folders"], tmp_path)


def test_a_disk_that_is_too_small_is_told_before_anything_is_decoded(forms, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000_000))
    with pytest.raises(StorageError, match=r"0\.07 GB are needed in .*, and 0\.01 GB are free: make room, or choose"):
        run(forms["class folders"], tmp_path)


def test_a_folder_that_cannot_be_written(forms, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        run(forms["class folders"], tmp_path / "file")


def test_a_disk_that_fills_up_is_one_line_and_the_run_goes_on_later(forms, tmp_path, undisturbed, monkeypatch):
    def full(job, parts, workers):
        yield pool.work(job, next(iter(parts)))
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pool, "run", full)
        patch.setattr("tokenmark.data.sources.base.TOGETHER", 4)
        with pytest.raises(StorageError, match=r"cannot write .*: No space left on device; nothing that was finished"):
            run(forms["class folders"], tmp_path)
    data, heard = run(forms["class folders"], tmp_path)
    assert heard.started == (22, 4)
    assert data.manifest.sha256 == prepared.load(undisturbed / "val").manifest.sha256


def test_a_worker_that_is_killed_is_one_line(tmp_path):
    rows, _ = Partial(tmp_path / "partial", Path("images.npy"), (1, 8, 8, 3), {}).open()
    job = pool.Job(read=kill_oneself, crop="adm", side=8, rows=rows)
    with pytest.raises(TokenmarkError, match=r"a worker process was killed.*fewer --workers"):
        list(pool.run(job, [((0, ()),)], 1))


def kill_oneself(_place):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def test_room_that_is_missing_is_what_is_not_yet_on_disk(tmp_path):
    partial = Partial(tmp_path / "partial", Path("images.npy"), (40, 64, 64, 3), {})
    rows, _ = partial.open()
    assert partial.missing_bytes() > 39 * 64 * 64 * 3
    with Path(rows.path).open("r+b") as file:
        for index in range(40):
            rows.write(file, index, np.full((64, 64, 3), index + 1, np.uint8))
    assert partial.missing_bytes() < 64 * 64 * 3


@pytest.mark.parametrize("named", [True, False])
@made.pyarrow
def test_shards_with_and_without_names_hold_the_same_pictures(tmp_path, undisturbed, named):
    data, _ = run(made.write_parquet(tmp_path / "shards", made.files(), named=named), tmp_path / "data")
    expected = prepared.load(undisturbed / "val")
    assert (data.manifest.sha256 == expected.manifest.sha256) is named
    assert sorted(row.tobytes() for row in data.images) == sorted(row.tobytes() for row in expected.images)


def test_training_pictures(tmp_path):
    for place, wnid in enumerate(wnids()[:3]):
        (tmp_path / "train" / wnid).mkdir(parents=True)
        (tmp_path / "train" / wnid / f"{wnid}_{place}.JPEG").write_bytes(made.rgb(place, 40, 30))
    wanted = request(tmp_path / "train", tmp_path / "data", collection=COLLECTIONS["imagenet-train"])
    manifest = prepare(wanted, Heard())
    assert (manifest.name, manifest.shape[0], manifest.subset.of) == (f"imagenet-train-{SIDE}-adm", 3, 1_281_167)
    assert prepared.load(tmp_path / "data" / wanted.name / "train").labels.tolist() == [0, 1, 2]
