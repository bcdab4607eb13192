"""Every kind of source gives the same files; what is no source, or damaged as a whole, is one line."""

import pickle
import sys
import tarfile

import pytest

from tests.tokenmark.data import made_imagenet as made
from tokenmark.data.imagenet import COLLECTIONS, wnids
from tokenmark.data.sources import detect, open_source
from tokenmark.errors import DataError

VAL, TRAIN = COLLECTIONS["imagenet-val"], COLLECTIONS["imagenet-train"]


@pytest.mark.parametrize("kind", made.KINDS)
def test_each_kind_gives_all_files(forms, kind):
    source = open_source(forms[kind], VAL)
    assert source.kind == kind.removeprefix("hub's ")
    read = pickle.loads(pickle.dumps(source.read))  # as a worker gets it
    found = {entry.name: (entry.label, entry.known, bytes(read(entry.place))) for entry in source.entries}
    expected = {
        file.name: (None if kind in ("tar", "flat folder") else file.label, True, file.data) for file in made.files()
    }
    assert found == expected


@made.pyarrow
def test_row_groups_are_read_in_one_go(forms):
    parts = open_source(forms["parquet shards"], VAL).parts
    assert [len(part) for part in parts] == [3, 3, 3, 2] * 2
    assert all(len({entry.place[:2] for entry in part}) == 1 for part in parts)


@made.pyarrow
def test_parquet_without_names_is_known_by_its_places(tmp_path):
    source = open_source(made.write_parquet(tmp_path, made.files(), named=False), VAL)
    assert not source.named
    assert len({entry.name for entry in source.entries}) == len(made.files())


@pytest.mark.parametrize("kind", ["class folders", pytest.param("parquet shards", marks=made.pyarrow)])
def test_the_place_itself_is_found_too(forms, kind):
    inner = {"class folders": "val", "parquet shards": "data"}[kind]
    assert detect(forms[kind] / inner, VAL) == (kind, forms[kind] / inner)


@made.pyarrow
def test_one_shard_is_a_source(forms):
    (first, _) = sorted((forms["parquet shards"] / "data").iterdir())
    assert len(list(open_source(first, VAL).entries)) == len(made.files()) // 2


def test_training_pictures_have_their_class_in_their_name(tmp_path):
    for wnid in wnids()[:2]:
        (tmp_path / "train" / wnid).mkdir(parents=True)
        (tmp_path / "train" / wnid / f"{wnid}_7.JPEG").write_bytes(b"x")
    entries = list(open_source(tmp_path, TRAIN).entries)
    assert [(entry.name, entry.label) for entry in entries] == [(f"{w}_7.JPEG", i) for i, w in enumerate(wnids()[:2])]


def test_what_is_no_picture_is_passed_over_and_strange_pictures_are_kept_apart(tmp_path):
    folder = made.write_flat(tmp_path / "flat", made.files()[:2])
    for name in (".DS_Store", "._ILSVRC2012_val_00000001.JPEG", "readme.txt", "ILSVRC2012_validation_ground_truth.txt"):
        (folder / name).write_bytes(b"x")
    (folder / "cat.jpg").write_bytes(b"x")
    (folder / "ILSVRC2012_val_00050001.JPEG").write_bytes(b"x")
    entries = {entry.name: entry.known for entry in open_source(folder, VAL).entries}
    strange = {"cat.jpg": False, "ILSVRC2012_val_00050001.JPEG": False}
    assert entries == {file.name: True for file in made.files()[:2]} | strange


def test_a_tar_with_folders_and_links_inside(tmp_path):
    path = made.write_tar(tmp_path / "val.tar", made.files()[:3], prefix="./val/")
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("ILSVRC2012_val_00000002.JPEG")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert {entry.name for entry in open_source(path, VAL).entries} == {file.name for file in made.files()[:3]}


def cut(path, tmp_path, keep):
    copy = tmp_path / path.name
    data = path.read_bytes()
    copy.write_bytes(data[: int(len(data) * keep)])
    return copy


def test_a_tar_that_was_cut_off(forms, tmp_path):
    with pytest.raises(DataError, match=r"is no tar, or was cut off \(.*\): get it again"):
        open_source(cut(forms["tar"], tmp_path, 0.5), VAL)


@pytest.mark.parametrize("name", ["val.tar.gz", "val.tgz", "val.zip"])
def test_compressed(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"is compressed.*: unpack it first"):
        open_source(tmp_path / name, VAL)


@made.pyarrow
@pytest.mark.parametrize("keep", [0, 0.01, 0.5, 0.99])
def test_a_shard_that_was_cut_off(forms, tmp_path, keep):
    (first, _) = sorted((forms["parquet shards"] / "data").iterdir())
    with pytest.raises(DataError, match=r"validation-00000-of-00002.parquet is no whole parquet file .*: get it again"):
        open_source(cut(first, tmp_path, keep), VAL)


def write_table(path, **columns):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(columns), path)
    return path


def test_shards_of_another_layout(tmp_path):
    path = write_table(tmp_path / "x.parquet", jpg=[b"x"], cls=[1])
    with pytest.raises(DataError, match=r"has no column image.bytes and label \(it has cls, jpg\)"):
        open_source(path, VAL)


@pytest.mark.parametrize("label", [-1, 1000, None])
def test_labels_of_the_test_split(tmp_path, label):
    path = write_table(tmp_path / "x.parquet", image=[{"bytes": b"x", "path": "a.JPEG"}], label=[label])
    with pytest.raises(DataError, match=f"holds the label {label}, and classes are 0 to 999"):
        open_source(path, VAL)


@made.pyarrow
def test_shards_of_other_splits(tmp_path):
    for name in ("train-0.parquet", "test-0.parquet"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"holds shards such as test-0.parquet, but none whose name begins with val or"):
        open_source(tmp_path, VAL)


def test_pyarrow_is_an_extra(tmp_path, monkeypatch):
    (tmp_path / "validation-0.parquet").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"reading parquet needs pyarrow: pip install 'tokenmark\[parquet\]'"):
        open_source(tmp_path, VAL)


def test_folders_that_are_no_classes(tmp_path):
    for name in (wnids()[0], "n99999999"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"none of ImageNet's 1,000 classes \(n99999999\): move them away"):
        open_source(tmp_path, VAL)


def test_nothing_there(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "cat.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"nothing of the ImageNet validation set .* is in .*: --source takes a tar"):
        open_source(tmp_path, VAL)
    with pytest.raises(DataError, match=r"there is no .*absent: --source takes a tar"):
        open_source(tmp_path / "absent", VAL)
    (tmp_path / "file").write_text("nothing of the kind")
    with pytest.raises(DataError, match="is no tar, or was cut off"):
        open_source(tmp_path / "file", VAL)
