"""`tokenmark tokenize`: codes and pictures of one image, and one line for every mistake."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tokenmark import build, look
from tokenmark.cli.main import status_of
from tokenmark.contracts import Tokens

CPU = torch.device("cpu")


@pytest.fixture
def photo(tmp_path):
    ramp = np.linspace(0, 255, 60).astype(np.uint8)
    pixels = np.stack([np.tile(ramp, (50, 1)), np.tile(ramp[::-1], (50, 1)), np.full((50, 60), 90, np.uint8)], axis=2)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def tokenize(photo, *arguments):
    return status_of(["tokenize", str(photo), "--output", str(photo.parent / "out"), "--device", "cpu", *arguments])


def test_codes_and_pictures_at_several_lengths(photo, capsys):
    assert tokenize(photo, "--method", "one-d-piece", "--tokens", "1,4,16") == 0
    held = json.loads((photo.parent / "out/photo.one-d-piece-mini-16.json").read_text())
    assert [each["tokens"] for each in held["codes"]] == [1, 4, 16]
    assert [each["bits"] for each in held["codes"]] == [8.0, 32.0, 128.0]
    assert held["codes"][0]["codes"] == held["codes"][2]["codes"][:1]
    module = build.tokenizer("one-d-piece", "mini-16", CPU)
    codes = torch.tensor([held["codes"][1]["codes"]])
    again = module.decode(Tokens(lengths=torch.tensor([4]), bits=torch.tensor([32.0]), codes=codes))
    image = look.read(photo, 32)
    assert torch.equal(module.encode(image, tokens=4).codes, codes)
    seen = look.through(module, image, [4], 0)[0]
    assert torch.equal(seen.image, again[0])
    with Image.open(photo.parent / "out/photo.one-d-piece-mini-16.png") as sheet:
        assert sheet.width > 4 * look.SHOWN
        assert sheet.height > look.SHOWN
    out = capsys.readouterr().out
    assert "one-d-piece/mini-16 on photo.png" in out
    assert max(map(len, out.splitlines()[:8])) <= 100


@pytest.mark.parametrize(("method", "key"), [("titok", "codes"), ("mar-vae", "latents"), ("jpeg", "codes")])
def test_what_has_one_length(photo, method, key):
    assert tokenize(photo, "--method", method) == 0
    (path,) = (photo.parent / "out").glob("*.json")
    held = json.loads(path.read_text())
    assert all(len(each[key]) == each["tokens"] for each in held["codes"])
    assert held["method"] == method


def test_some_lengths_are_chosen_where_none_is_asked(photo):
    assert tokenize(photo, "--method", "one-d-piece") == 0
    held = json.loads((photo.parent / "out/photo.one-d-piece-mini-16.json").read_text())
    assert [each["tokens"] for each in held["codes"]] == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "titokk"], "unknown method 'titokk': did you mean titok"),
        (["--method", "tome"], "'tome' is a reducer, but a tokenizer is needed here"),
        (["--method", "titok", "--variant", "l33"], "unknown variant of titok 'l33'"),
        (["--method", "titok", "--variant", "l32"], "titok/l32 has no weights here"),
        (["--method", "vqgan"], "vqgan has no weights here: get some (`tokenmark weights vqgan`"),
        (["--method", "titok", "--tokens", "4"], "tokens=4 cannot be asked of it"),
        (["--method", "one-d-piece", "--tokens", "17"], "tokens must be 1 to 16"),
        (["--method", "one-d-piece", "--tokens", "a"], "'a' is not a number of tokens"),
        (["--method", "titok", "--weights", "nowhere.pt"], "nowhere.pt does not exist"),
    ],
)
def test_mistakes_are_one_line_and_status_2(photo, capsys, monkeypatch, arguments, words):
    monkeypatch.setenv("TOKENMARK_WEIGHTS", str(photo.parent / "shelf"))
    assert tokenize(photo, *arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (photo.parent / "out").exists()


def test_pictures_that_are_none(tmp_path, capsys):
    text = tmp_path / "notes.png"
    text.write_text("no picture")
    for path in (text, tmp_path / "absent.png"):
        assert tokenize(path, "--method", "titok") == 2
        assert "give" in capsys.readouterr().err


def test_a_checkpoint_by_its_path(photo, capsys):
    """As the release has it, under its own keys; one of another size is refused with the first keys that differ."""
    shelf = photo.parent / "mine"
    shelf.mkdir()
    state = build.tokenizer("titok", "mini-16", CPU).state_dict()
    torch.save({"state_dict": state}, shelf / "other.pt")
    assert tokenize(photo, "--method", "titok", "--variant", "s128", "--weights", str(shelf / "other.pt")) == 2
    error = capsys.readouterr().err
    assert "does not fit this model" in error
    assert "mis-shaped" in error
