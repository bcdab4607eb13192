"""Writing that leaves the old file or the whole new one, and JSON with one text per value."""

import errno
import hashlib
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmark import files
from tokenmark.errors import StorageError
from tokenmark.files import canonical_json, sha256_of, sha256_text, write_atomic

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


def turned(value):
    """The same value with the keys of every dictionary put in from last to first."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_one_text_per_value(value):
    text = canonical_json(value)
    assert canonical_json(turned(value)) == text
    assert json.loads(text) == value
    assert "\n" not in text


@given(st.dictionaries(st.text(), st.integers()), st.dictionaries(st.text(), st.integers()))
def test_unequal_values_have_unequal_texts(one, other):
    assert (canonical_json(one) == canonical_json(other)) == (one == other)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_json_does_not_have_is_refused(number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"deep": [1, {"value": number}]})


def test_canonical_json_is_what_it_always_was():
    """Hashes name runs: a change of this text would orphan every record."""
    value = {"b": [1, 2.5, None, True], "a": "Fréchet", "c": {}}
    assert canonical_json(value) == '{"a":"Fréchet","b":[1,2.5,null,true],"c":{}}'


def test_hashes(tmp_path):
    data = os.urandom(300_000)
    (tmp_path / "file").write_bytes(data)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(data).hexdigest() == files.sha256_bytes(data)
    assert sha256_text("é") == hashlib.sha256(b"\xc3\xa9").hexdigest()


def test_writes_below_new_folders_and_over_old_files(tmp_path):
    path = tmp_path / "a" / "b" / "file.json"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """A real refusal: the process may not make files of more than 1,000 bytes."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    program = (
        "import resource, signal, sys; from pathlib import Path; from tokenmark.files import write_atomic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_atomic(Path(sys.argv[1]), b'x' * 100_000)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"StorageError: cannot write {path}: File too large" in done.stderr
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_before_the_bytes_are_safe_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def refuse(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(StorageError, match=r"No space left on device.*run the same command again"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interruption_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(_descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "below", tmp_path / "folder", tmp_path / ("n" * 300)):
        with pytest.raises(StorageError, match="cannot write"):
            write_atomic(path, b"new")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]
