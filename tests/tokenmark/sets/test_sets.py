"""Image sets: whatever form they come in, the same images come out, and damage is told by name."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.tokenmark import make
from tokenmark import sets
from tokenmark.data import prepared
from tokenmark.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)


def all_of(found, size=3):
    batches = list(found.batches(size))
    assert all(len(batch) <= size for batch in batches)
    return np.concatenate(batches)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "images"
    (place / "b").mkdir(parents=True)
    for at, image in enumerate(IMAGES):
        Image.fromarray(image).save(place / ("b" if at > 3 else ".") / f"{at}.PNG", format="png")
    (place / "notes.txt").write_text("not an image")
    return place


def saved(path, save, **arrays):
    save(path, **arrays)
    return path


@pytest.mark.parametrize("kind", ["npz", "compressed", "npy", "folder", "prepared"])
@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_every_form_gives_the_same_images(tmp_path, folder, kind, size):
    path = {"folder": folder, "npy": tmp_path / "a.npy", "prepared": tmp_path / "p"}.get(kind, tmp_path / "a.npz")
    if kind == "npy":
        np.save(path, IMAGES)
    elif kind == "prepared":
        labels = np.zeros(len(IMAGES), np.int64)
        prepared.write(path, IMAGES, labels, name="made", split="val", source="numpy", crop="none")
    elif kind != "folder":
        (np.savez if kind == "npz" else np.savez_compressed)(path, IMAGES)
    found = sets.open_set(path)
    assert found.n == len(IMAGES)
    assert np.array_equal(all_of(found, size), IMAGES)
    assert np.array_equal(all_of(found, size), IMAGES), "a second pass gives them again"


def test_images_of_several_sizes_keep_their_order(tmp_path):
    sizes = [(4, 4), (4, 4), (5, 4), (4, 4), (4, 4), (4, 4)]
    for at, (height, width) in enumerate(sizes):
        Image.new("RGB", (width, height), (at, 0, 0)).save(tmp_path / f"{at}.png")
    batches = list(sets.open_set(tmp_path).batches(2))
    assert [batch.shape[:2] for batch in batches] == [(2, 4), (1, 5), (2, 4), (1, 4)]
    assert [int(image[0, 0, 0]) for batch in batches for image in batch] == list(range(6))


def test_adm_reference_brings_statistics(tmp_path):
    mean, covariance = np.arange(4.0), np.eye(4)
    facts = {"arr_0": IMAGES, "mu": mean, "sigma": covariance, "mu_s": mean[:3], "sigma_s": covariance[:3, :3]}
    found = sets.open_set(saved(tmp_path / "VIRTUAL.npz", np.savez, **facts))
    assert found.n == 7
    assert np.array_equal(found.statistics["pool"].mean, mean)
    assert np.array_equal(found.statistics["spatial"].covariance, covariance[:3, :3])


def test_statistics_alone(tmp_path):
    found = sets.open_set(saved(tmp_path / "stats.npz", np.savez, mu=np.zeros(2, np.float32), sigma=np.eye(2)))
    assert found.n == 0
    assert list(found.batches(5)) == []
    assert found.statistics["pool"].mean.dtype == np.float64
    assert "spatial" not in found.statistics


def test_a_grey_and_a_transparent_image_become_rgb(tmp_path):
    Image.new("L", (3, 2), 7).save(tmp_path / "a.png")
    Image.new("RGBA", (3, 2), (1, 2, 3, 0)).save(tmp_path / "b.png")
    (batch,) = sets.open_set(tmp_path).batches(9)
    assert batch[0, 0, 0].tolist() == [7, 7, 7]
    assert batch[1, 0, 0].tolist() == [1, 2, 3]


def pickled():
    out = io.BytesIO()
    np.lib.format.write_array(out, np.array([{}], object), allow_pickle=True)
    return out.getvalue()


def npz_bytes(**members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return out.getvalue()


def npy_bytes(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


WHOLE = npz_bytes(arr_0=npy_bytes(IMAGES))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.npz", b"", "not a whole .npz file"),
        ("a.npz", WHOLE[:-30], "not a whole .npz file"),
        ("a.npz", npz_bytes(other=npy_bytes(IMAGES)), "holds other; wanted is arr_0"),
        ("a.npz", npz_bytes(), "holds nothing"),
        ("a.npz", npz_bytes(arr_0=pickled()), "wanted are 8-bit images"),
        ("a.npz", npz_bytes(arr_0=b"abc"), "no plain array"),
        ("a.npz", npz_bytes(arr_0=npy_bytes(IMAGES / 255)), "float64 of shape"),
        ("a.npz", npz_bytes(arr_0=npy_bytes(IMAGES.transpose(0, 3, 1, 2))), "uint8 of shape"),
        ("a.npz", npz_bytes(arr_0=npy_bytes(np.asfortranarray(IMAGES))), "stored by columns"),
        ("a.npz", npz_bytes(mu=npy_bytes(np.zeros(3)), sigma=npy_bytes(np.eye(2))), "mu is"),
        ("a.npz", npz_bytes(mu=pickled(), sigma=npy_bytes(np.eye(2))), "mu is no array of numbers"),
        ("a.npy", npy_bytes(IMAGES)[:-1], "not a whole .npy file"),
        ("a.npy", pickled(), "not a whole .npy file"),
        ("a.npy", npy_bytes(IMAGES[0]), "uint8 of shape"),
        ("a.pt", b"x", "is no image set"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as error:
        sets.open_set(path)
    assert "\n" not in str(error.value)
    assert name in str(error.value)


def test_damage_in_the_pixels_is_found_when_they_are_read(tmp_path):
    path = tmp_path / "a.npz"
    damaged = bytearray(npz_bytes(arr_0=npy_bytes(np.tile(IMAGES, (1, 20, 20, 1)))))  # more than one read of zipfile's
    damaged[len(damaged) // 2] ^= 255
    path.write_bytes(damaged)
    found = sets.open_set(path)
    with pytest.raises(DataError, match="damaged after image"):
        list(found.batches(3))


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match="there is nothing at"):
        sets.open_set(tmp_path / "none")
    with pytest.raises(DataError, match="holds no images"):
        sets.open_set(tmp_path)


def test_a_truncated_image_is_named(folder):
    whole = (folder / "2.PNG").read_bytes()
    (folder / "2.PNG").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"2\.PNG is truncated or no image"):
        list(sets.open_set(folder).batches(10))


def test_altered_prepared_data_are_refused(tmp_path):
    make.data_set(tmp_path / "made")
    with (tmp_path / "made" / "images.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\0")
    with pytest.raises(DataError, match="altered"):
        sets.open_set(tmp_path / "made")


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 9), height=st.integers(1, 4), width=st.integers(1, 4), size=st.integers(1, 10))
def test_any_shape_streams_whole(tmp_path_factory, n, height, width, size):
    images = np.random.default_rng(n).integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    np.savez_compressed(path, images)
    assert np.array_equal(all_of(sets.open_set(path), size), images)
