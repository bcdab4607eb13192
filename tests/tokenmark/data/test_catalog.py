"""Data sets by name."""

import pytest

from tokenmark.data import catalog
from tokenmark.errors import DataError, UnknownNameError


def test_prepared_on_first_use_and_then_left_alone(digits_folder):
    place = digits_folder / "digits-32" / "val" / "images.npy"
    before = place.stat().st_mtime_ns
    assert len(catalog.load("digits-32", "val", digits_folder)) == 500
    assert place.stat().st_mtime_ns == before


def test_what_a_killed_preparation_left_is_made_again(tmp_path, monkeypatch):
    """A folder that was begun under another name is never taken for the data set."""

    def begin(folder):
        (folder / "val").mkdir(parents=True)
        (folder / "val" / "images.npy").write_bytes(b"half")
        raise KeyboardInterrupt

    complete = catalog.EMBEDDED["digits-32"]
    monkeypatch.setitem(catalog.EMBEDDED, "digits-32", begin)
    with pytest.raises(KeyboardInterrupt):
        catalog.load("digits-32", "val", tmp_path)
    monkeypatch.setitem(catalog.EMBEDDED, "digits-32", complete)
    assert len(catalog.load("digits-32", "val", tmp_path)) == 500
    assert [entry.name for entry in tmp_path.iterdir() if entry.suffix != ".lock"] == ["digits-32"]


def test_damage_is_told_and_not_mended_in_silence(tmp_path):
    (tmp_path / "digits-32" / "val").mkdir(parents=True)
    with pytest.raises(DataError, match="no prepared data set"):
        catalog.load("digits-32", "val", tmp_path)


def test_unknown_names(tmp_path, digits_folder):
    with pytest.raises(UnknownNameError, match="unknown data set 'digit-32': did you mean digits-32"):
        catalog.load("digit-32", "val", tmp_path)
    with pytest.raises(DataError):
        catalog.load("digits-32", "test", digits_folder)
