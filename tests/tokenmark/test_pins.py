"""Pins: written so that they are read again, and refused in one line where they are none."""

import pytest

from tests.loopback import COMMIT, sha256
from tokenmark import pins
from tokenmark.errors import StorageError, WeightsError
from tokenmark.pins import Pin

HASH = sha256(b"right")


def test_written_and_read(tmp_path):
    folder = tmp_path / "new"
    assert pins.read(folder) == {}
    first = {"b/net/model.bin": Pin(sha256=HASH, revision=COMMIT), 'odd "key"\\': Pin(sha256=HASH)}
    pins.add(folder, first)
    assert pins.read(folder) == first
    second = {"b/net/model.bin": Pin(sha256="0" * 64, revision=COMMIT), "a/net/x": Pin(sha256=HASH)}
    pins.add(folder, second)
    assert pins.read(folder) == {**first, **second}
    assert (folder / pins.FILE).read_text().startswith('["a/net/x"]\nsha256 = ')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["a"]\nsha256 = "1234"\n', r"a: sha256: String should match pattern .*got '1234'"),
        (f'["a"]\nsha256 = "{HASH.upper()}"\n', "a: sha256: String should match"),
        (f'["a"]\nsha256 = "{HASH}"\nrevision = "main"\n', "a: revision: String should match .*got 'main'"),
        (f'["a"]\nsha256 = "{HASH}"\nrevison = "{COMMIT}"\n', "a: revison: Extra inputs are not permitted"),
        ('["a"]\nsha256 = 12\n', "a: sha256: Input should be a valid string"),
        (f'["a"]\nrevision = "{COMMIT}"\n', "a: sha256: Field required"),
        ('a = "b"\n', "pins.toml: a: Input should be a valid dictionary"),
        ('["a"\n', "pins.toml cannot be read"),
        (b"\xff\xfe", "pins.toml cannot be read"),
    ],
)
def test_what_is_no_pin(tmp_path, text, message):
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / pins.FILE).write_bytes(data)
    with pytest.raises(WeightsError, match=message) as error:
        pins.read(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(WeightsError, match=message):
        pins.add(tmp_path, {"b": Pin(sha256=HASH)})
    assert (tmp_path / pins.FILE).read_bytes() == data


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        pins.add(tmp_path / "file" / "folder", {"b": Pin(sha256=HASH)})
