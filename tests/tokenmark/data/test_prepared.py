"""Prepared data sets: what is written is read, and nothing else is."""

import json
import os
import pickle

import numpy as np
import pytest
import torch

from tests.tokenmark import make
from tokenmark.data import prepared
from tokenmark.errors import DataError, StorageError
from tokenmark.files import sha256_of


@pytest.fixture
def folder(tmp_path):
    make.data_set(tmp_path / "made" / "val")
    return tmp_path / "made" / "val"


def test_what_is_written_is_read(folder):
    data = prepared.load(folder)
    rng = np.random.default_rng(0)
    expected = rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    assert len(data) == 12
    assert data.classes == 3
    assert (data.images == expected).all()
    assert isinstance(data.images, np.memmap)
    images, labels = data.batch(2, 5)
    assert images.shape == (3, 3, 8, 8)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert torch.equal(images, torch.from_numpy(expected[2:5]).permute(0, 3, 1, 2).float() / 255)
    assert labels.tolist() == [2, 0, 1]
    images.zero_()
    assert (data.images == expected).all()


def test_manifest_says_what_is_there(folder):
    manifest = prepared.load(folder).manifest
    assert manifest.shape == (12, 8, 8, 3)
    assert manifest.class_counts == (4, 4, 4)
    assert manifest.images_sha256 == sha256_of(folder / "images.npy")
    raw = json.loads((folder / "manifest.json").read_text())
    for name, value in raw.items():
        if isinstance(value, str):
            assert manifest.model_copy(update={name: value + "x"}).sha256 != manifest.sha256


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
@pytest.mark.parametrize("harm", ["altered", "truncated", "longer", "missing", "empty"])
def test_damaged_arrays(folder, name, harm):
    path = folder / name
    data = path.read_bytes()
    changed = {
        "altered": data[:-1] + bytes([data[-1] ^ 1]),
        "truncated": data[:-1],
        "longer": data + b"\0",
        "empty": b"",
    }
    path.unlink()
    if harm in changed:
        path.write_bytes(changed[harm])
    with pytest.raises(DataError, match=rf"{name} is missing, truncated or altered: delete .* and prepare it again"):
        prepared.load(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda _text: "",
        lambda _text: "[1, 2]",
        lambda text: text.replace('"crop"', '"crops"'),
        lambda text: text.replace('"shape": [', '"shape": ["x",'),
        lambda text: text.replace("12", "13", 1).replace('"shape"', '"shape"'),
        lambda text: text.replace('"version": 1', '"version": 2').replace('"version":1', '"version":2'),
    ],
)
def test_damaged_manifest(folder, change):
    path = folder / "manifest.json"
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before
    with pytest.raises(DataError):
        prepared.load(folder)


def test_manifest_that_is_no_text(folder):
    (folder / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is not a manifest"):
        prepared.load(folder)


def test_missing(tmp_path):
    with pytest.raises(DataError, match="there is no prepared data set"):
        prepared.load(tmp_path / "absent")


def consistent(folder, name, digest_name, data):
    """Put other bytes in an array's place and make the manifest agree with them."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest[digest_name] = sha256_of(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))


class Trap:
    """What a pickle could do: leave a mark when it is opened."""

    def __reduce__(self):
        return (print, ("opened",))


def as_npy(array, **options):
    import io

    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


@pytest.mark.parametrize("name", ["images", "labels"])
@pytest.mark.parametrize("kind", ["object array", "bare pickle", "not npy", "float array", "other length"])
def test_arrays_that_agree_with_their_manifest_but_are_no_data(folder, name, kind, capsys):
    trap = np.empty(12, object)
    trap[:] = [Trap()] * 12
    data = {
        "object array": lambda: as_npy(trap, allow_pickle=True),
        "bare pickle": lambda: pickle.dumps(Trap()),
        "not npy": lambda: b"nothing of the kind",
        "float array": lambda: as_npy(np.zeros((12, 8, 8, 3) if name == "images" else 12, np.float32)),
        "other length": lambda: as_npy(
            np.zeros((11, 8, 8, 3), np.uint8) if name == "images" else np.zeros(11, np.int64)
        ),
    }[kind]()
    consistent(folder, f"{name}.npy", f"{name}_sha256", data)
    with pytest.raises(DataError):
        prepared.load(folder)
    assert "opened" not in capsys.readouterr().out


def test_a_failed_write_leaves_no_data_set(tmp_path):
    make.data_set(tmp_path / "made")
    (tmp_path / "made" / "labels.npy").unlink()
    (tmp_path / "made" / "labels.npy").mkdir()
    with pytest.raises(StorageError):
        make.data_set(tmp_path / "made")
    with pytest.raises(DataError, match="there is no prepared data set"):
        prepared.load(tmp_path / "made")


def test_the_name_of_the_data_is_that_of_their_pixels(folder):
    """Not of how they were made; but a subset never has the name of the whole."""
    manifest = prepared.load(folder).manifest
    origin = prepared.Origin(kind="tar", files_sha256="0" * 64, found={"JPEG RGB": 12}, decoder={"pillow": "1"})
    assert manifest.model_copy(update={"origin": origin}).sha256 == manifest.sha256
    subset = prepared.Subset(of=13, left_out=1, left_out_sha256="0" * 64)
    part = manifest.model_copy(update={"subset": subset})
    assert part.sha256 != manifest.sha256
    assert part.sha256 != manifest.model_copy(update={"subset": subset.model_copy(update={"limit": 12})}).sha256


def test_a_whole_set_has_no_warnings(folder):
    assert prepared.load(folder).warnings == []


def test_damage_after_the_first_opening_is_found(folder):
    """A digest is remembered only for a file that nobody has touched."""
    prepared.load(folder)
    path = folder / "images.npy"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1_000_000_000))
    with pytest.raises(DataError, match=r"images.npy is missing, truncated or altered"):
        prepared.load(folder)
