"""The embedded digits: their split, their bytes, and what they are made of."""

import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tokenmark.data import catalog, digits
from tokenmark.errors import StorageError

PIXELS = {
    "train": "0e224ef07fe4ac47bdf9a9ca4f4826adeb09231e6933687b5b3efd9ab04402bb",
    "val": "4c027d728c63547075a0c66d6d80bbf614d4623753b540f4e541240dbbc67ddd",
}
LABELS = {
    "train": "4a28d0046f2075f89ea693edb835e267c7e8141ef89efd72d7bc41bab176ef3a",
    "val": "1d2f561e42bb62c087f40870448910e8bdfab5eda385f032e8ae9a2167563d7a",
}
MANIFESTS = {
    "train": "c9d2bce7c99013d91f7066a446492589f3e59529bf3e2e38fbf19ea4fd0dc9be",
    "val": "ccc48d1354aa56431e2cc09759b0c384a7e3ca2dd866f932e3ac9748f14e4345",
}
"""Of the manifests with `x` as their source, whose words hold the version of scikit-learn."""


@pytest.fixture
def splits(digits_folder):
    return {split: catalog.load("digits-32", split, digits_folder) for split in ("train", "val")}


def test_sizes(splits):
    assert {split: data.images.shape for split, data in splits.items()} == {
        "train": (1297, 32, 32, 3),
        "val": (500, 32, 32, 3),
    }
    assert np.bincount(splits["val"].labels).tolist() == [50] * 10
    assert splits["train"].classes == splits["val"].classes == 10


def test_no_image_is_on_both_sides_and_none_is_lost(splits):
    seen = {split: [image.tobytes() for image in data.images] for split, data in splits.items()}
    assert not set(seen["train"]) & set(seen["val"])
    everything = sorted(digits._enlarge(scan).tobytes() for scan in load_digits().images)
    assert sorted(seen["train"] + seen["val"]) == everything


def test_each_label_is_the_scan_s_own(splits):
    raw = load_digits()
    label_of = {digits._enlarge(scan).tobytes(): label for scan, label in zip(raw.images, raw.target, strict=True)}
    for data in splits.values():
        assert [label_of[image.tobytes()] for image in data.images] == data.labels.tolist()


def test_held_out_digits_come_from_the_whole_collection():
    """Writers follow one another in it: no long stretch may be without a held-out scan."""
    labels = load_digits().target
    places = np.flatnonzero(digits._held_out(labels))
    assert np.diff(places).max() < 40
    for label in range(10):
        own = np.flatnonzero(labels == label)
        held = np.isin(own, places)
        assert held[0]
        assert held[-1]


def test_pixels_are_enlarged_scans(splits):
    """Averaged back to 8 x 8, an image is its scan within the filter's overshoot; the three colours are equal."""
    for data in splits.values():
        assert (data.images == data.images[..., :1]).all()
    scan = load_digits().images[0]
    image = digits._enlarge(scan)[..., 0].astype(float)
    small = image.reshape(8, 4, 8, 4).mean(axis=(1, 3)) / 255 * 16
    assert np.abs(small - scan).mean() < 1
    assert np.corrcoef(small.ravel(), scan.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_bytes_are_those_that_everybody_has(splits, split):
    """Records and weights name the data by these hashes."""
    manifest = splits[split].manifest
    assert manifest.images_sha256 == PIXELS[split]
    assert manifest.labels_sha256 == LABELS[split]
    assert manifest.model_copy(update={"source": "x"}).sha256 == MANIFESTS[split]


def test_preparing_twice_gives_the_same_files(digits_folder, tmp_path):
    digits.prepare(tmp_path)
    for path in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
        other = digits_folder / "digits-32" / path.relative_to(tmp_path)
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()


def test_first_runs_at_the_same_time_share_one_preparation(tmp_path, monkeypatch):
    prepared_by = []

    def slow(folder):
        prepared_by.append(threading.get_ident())
        time.sleep(0.2)  # the others arrive while this one works
        digits.prepare(folder)

    monkeypatch.setitem(catalog.EMBEDDED, "digits-32", slow)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: len(catalog.load("digits-32", "val", tmp_path)), range(4)))
    assert found == [500] * 4
    assert len(prepared_by) == 1


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match="cannot write"):
        catalog.load("digits-32", "val", tmp_path / "file")
