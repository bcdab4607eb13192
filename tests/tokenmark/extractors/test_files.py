"""Weights files: where they are looked for, and every way in which one can be wrong."""

import pickle

import pytest
import safetensors.torch
import torch

from tokenmark.errors import WeightsError
from tokenmark.extractors import files
from tokenmark.extractors.files import WeightsFile
from tokenmark.files import sha256_bytes, sha256_of


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty folder of torch.hub's downloads, and no folder named by the user."""
    monkeypatch.delenv("TOKENMARK_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


WANTED = WeightsFile("net.pth", "the moon", sha256_bytes(b"right"))


def test_the_users_folder_comes_before_torch_hubs(hub, tmp_path, monkeypatch):
    (hub / "net.pth").write_bytes(b"right")
    assert files.found(WANTED) == hub / "net.pth"
    monkeypatch.setenv("TOKENMARK_WEIGHTS", str(tmp_path / "mine"))
    assert files.found(WANTED) == hub / "net.pth"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "net.pth").write_bytes(b"right")
    assert files.found(WANTED) == tmp_path / "mine" / "net.pth"


def test_a_path_is_taken_alone(hub, tmp_path):
    (hub / "net.pth").write_bytes(b"right")
    (tmp_path / "other.pth").write_bytes(b"right")
    assert files.found(WANTED, tmp_path / "other.pth") == tmp_path / "other.pth"
    with pytest.raises(WeightsError, match=r"net\.pth is missing, looked for at .*absent\.pth: get it from the moon"):
        files.found(WANTED, tmp_path / "absent.pth")


def test_missing_says_where_it_was_looked_for(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("TOKENMARK_WEIGHTS", str(tmp_path / "mine"))
    with pytest.raises(WeightsError) as error:
        files.found(WANTED)
    message = str(error.value)
    assert "\n" not in message
    for part in (tmp_path / "mine" / "net.pth", hub / "net.pth", "the moon", "TOKENMARK_WEIGHTS"):
        assert str(part) in message


@pytest.mark.parametrize("data", [b"righ", b"rightt", b"Right", b""])
def test_other_bytes(hub, data):
    (hub / "net.pth").write_bytes(data)
    with pytest.raises(WeightsError, match=r"is another file or truncated"):
        files.found(WANTED)
    assert files.found(WANTED, sha256=sha256_bytes(data).upper()) == hub / "net.pth"


def test_where_no_hash_is_published_one_must_be_given(hub):
    (hub / "net.pth").write_bytes(b"right")
    unknown = WeightsFile("net.pth", "the moon", None)
    with pytest.raises(WeightsError, match="give the SHA-256"):
        files.found(unknown)
    assert files.found(unknown, sha256=sha256_bytes(b"right")) == hub / "net.pth"


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_reads_what_was_written(tmp_path, suffix):
    state = {"a": torch.rand(3), "b": torch.arange(2)}
    path = tmp_path / f"net.{suffix}"
    (torch.save if suffix == "pth" else safetensors.torch.save_file)(state, path)
    got = files.read(path)
    assert got.keys() == state.keys()
    assert all(torch.equal(got[key], state[key]) for key in state)


class Harm:
    def __reduce__(self):
        return print, ("executed",)


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    torch.save({"a": Harm()}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="cannot be read as tensors alone") as error:
        files.read(tmp_path / "net.pth")
    assert "\n" not in str(error.value)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("data", [b"", b"no weights", pickle.dumps(3), b"PK\x03\x04 no archive"])
def test_no_weights_file(tmp_path, suffix, data):
    path = tmp_path / f"net.{suffix}"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"cannot be read as tensors alone|does not hold named tensors"):
        files.read(path)


@pytest.mark.parametrize("held", [[torch.zeros(1)], {"a": 1.0}, torch.zeros(2)])
def test_something_else_than_named_tensors(tmp_path, held):
    torch.save(held, tmp_path / "net.pth")
    assert sha256_of(tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="does not hold named tensors"):
        files.read(tmp_path / "net.pth")
