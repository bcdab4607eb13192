"""Data sets by name."""

import re
import shlex

import pytest

from tests.tokenmark import make
from tokenmark.cli.main import status_of
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


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("imagenet-val-256-adm", "tokenmark prepare imagenet-val --source PATH --size 256 --crop adm"),
        ("imagenet-val-64-centre-only", "tokenmark prepare imagenet-val --source PATH --size 64 --crop centre-only"),
        ("imagenet-train-256-bicubic", "tokenmark prepare imagenet-train --source PATH --size 256 --crop bicubic"),
    ],
)
def test_what_must_be_prepared_says_by_which_command(tmp_path, name, command):
    folder = tmp_path / "my data"
    with pytest.raises(DataError) as caught:
        catalog.load(name, "val", folder)
    assert str(caught.value) == f"{name} is not in {folder}: prepare it with `{command} --data '{folder}'`"
    made = re.search("`tokenmark (.*)`", str(caught.value))[1].replace("PATH", str(tmp_path / "absent"))
    assert status_of(shlex.split(made)) == 2  # the command is understood, and finds no source


def test_what_was_prepared_is_found(tmp_path):
    make.data_set(tmp_path / "imagenet-val-8-adm" / "val")
    assert len(catalog.load("imagenet-val-8-adm", "val", tmp_path)) == 12


@pytest.mark.parametrize(
    "name", ["imagenet-val-256-amd", "imagenet-val-adm", "imagenet-test-256-adm", "imagenet-val-0-adm"]
)
def test_names_that_no_command_makes(tmp_path, name):
    with pytest.raises(UnknownNameError, match=f"unknown data set '{name}'"):
        catalog.load(name, "val", tmp_path)
