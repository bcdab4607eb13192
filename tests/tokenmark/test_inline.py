"""Pictures in the terminal."""

import base64
import io
import re

import pytest
from PIL import Image
from rich.console import Console

from tokenmark import inline


@pytest.fixture
def picture():
    picture = Image.new("RGB", (8, 4), (255, 0, 0))
    picture.paste((0, 0, 255), (0, 2, 8, 4))
    return picture


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    for name in ("TERM_PROGRAM", "KITTY_WINDOW_ID", "TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


def shown(picture, **options):
    out = io.StringIO()
    usual = {"force_terminal": True, "color_system": "truecolor", "width": 80}
    inline.show(picture, Console(file=out, **{**usual, **options}))
    return out.getvalue()


def opened(data):
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def test_half_blocks_are_two_pixels_each(picture):
    lines = shown(picture).strip("\n").splitlines()
    assert len(lines) == 2
    assert [line.count(inline.HALF) for line in lines] == [8, 8]
    assert "38;2;255;0;0" in lines[0]
    assert "48;2;0;0;255" in lines[1]
    narrow = shown(picture, width=4).strip("\n").splitlines()
    assert [line.count(inline.HALF) for line in narrow] == [4]


def test_iterm(picture, monkeypatch):
    monkeypatch.setenv("TERM_PROGRAM", "iTerm.app")
    found = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+):(.*)\x07\n", shown(picture))
    assert opened(found[2]).getpixel((0, 3)) == (0, 0, 255)
    assert len(base64.b64decode(found[2])) == int(found[1])


def test_kitty_sends_pieces_of_4096_bytes(monkeypatch):
    monkeypatch.setenv("KITTY_WINDOW_ID", "1")
    noise = Image.effect_noise((90, 90), 80).convert("RGB")
    pieces = re.findall(r"\x1b_G(f=100,a=T,)?m=(\d);(.*?)\x1b\\", shown(noise))
    assert len(pieces) > 1
    assert [bool(head) for head, _, _ in pieces] == [True] + [False] * (len(pieces) - 1)
    assert [more for _, more, _ in pieces] == ["1"] * (len(pieces) - 1) + ["0"]
    assert max(len(data) for _, _, data in pieces) <= 4096
    assert opened("".join(data for _, _, data in pieces)).tobytes() == noise.tobytes()


@pytest.mark.parametrize("options", [{"force_terminal": False}, {"color_system": None}, {"color_system": "standard"}])
def test_nothing_where_it_would_be_noise(picture, options):
    assert shown(picture, **options) == ""
