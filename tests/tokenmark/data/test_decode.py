"""Pictures of all modes become RGB by stated rules; damaged ones are refused."""

import contextlib
import io
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.tokenmark.data.made_imagenet import encoded, pixels, rgb, rotated_by_exif
from tokenmark.data.decode import UnreadableError, decode, versions


def plain(mode, colours):
    """A picture of one mode that Pillow can save."""
    return Image.fromarray(pixels(1, 24, 17, colours).squeeze(), mode)


def array(data):
    image, kind = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image), kind


@pytest.mark.parametrize("progressive", [False, True])
def test_colour_is_what_pillow_gives(progressive):
    data = rgb(3, 40, 31, progressive=progressive)
    found, kind = array(data)
    assert kind == "JPEG RGB"
    assert (found == np.asarray(Image.open(io.BytesIO(data)))).all()


def test_grey_is_repeated():
    found, kind = array(encoded(plain("L", 1), quality=95))
    assert kind == "JPEG L"
    assert (found == found[..., :1]).all()
    assert np.abs(found[..., 0].astype(int) - pixels(1, 24, 17, 1)[..., 0]).mean() < 5


@pytest.mark.parametrize(
    ("ink", "colour"),
    [
        ((0, 0, 0, 0), (255, 255, 255)),
        ((0, 255, 255, 0), (255, 0, 0)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((255, 0, 0, 128), (0, 127, 127)),
    ],
)
def test_cmyk_is_ink_on_white(ink, colour):
    """As Adobe stores it: inverted. A reader that forgets this shows a negative."""
    found, kind = array(encoded(Image.new("CMYK", (16, 16), ink), quality=100))
    assert kind == "JPEG CMYK"
    assert np.abs(found.astype(int) - colour).max() <= 3


def test_palette_is_looked_up():
    image = Image.fromarray(pixels(4, 30, 20)).quantize(30)
    found, kind = array(encoded(image, "PNG"))
    assert kind == "PNG P"
    table = np.array(image.getpalette(), np.uint8).reshape(-1, 3)
    assert (found == table[np.asarray(image)]).all()


@pytest.mark.parametrize(("mode", "colours"), [("RGBA", 4), ("LA", 2)])
def test_alpha_is_dropped_and_not_blended(mode, colours):
    source = pixels(5, 21, 13, colours)
    found, kind = array(encoded(Image.fromarray(source, mode), "PNG"))
    assert kind == f"PNG {mode}"
    assert (found == (source[..., :3] if colours == 4 else source[..., :1])).all()


@pytest.mark.filterwarnings("ignore:Palette images")
def test_a_palette_with_transparency_keeps_its_colours():
    image = Image.fromarray(pixels(4, 30, 20)).quantize(30)
    found, _ = array(encoded(image, "PNG", transparency=bytes(range(30))))
    assert (found == array(encoded(image, "PNG"))[0]).all()


def test_16_bit_grey_keeps_its_high_byte():
    levels = np.arange(0, 65536, 13, dtype=np.uint16)[:5000].reshape(50, 100)
    found, kind = array(encoded(Image.fromarray(levels), "PNG"))
    assert kind.startswith("PNG I")
    assert (found == (levels // 256)[..., None]).all()


def test_16_bit_colour_keeps_its_high_byte():
    """Written by hand, for Pillow writes none."""
    levels = np.random.default_rng(0).integers(0, 65536, (6, 9, 3), dtype=np.uint16)
    found, _ = array(png_16_bit(levels))
    assert (found == levels // 256).all()


def png_16_bit(levels):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width, _ = levels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_black_and_white():
    found, kind = array(encoded(Image.fromarray(pixels(6, 20, 20, 1)[..., 0]).convert("1"), "PNG"))
    assert kind == "PNG 1"
    assert set(np.unique(found)) == {0, 255}


def test_exif_rotation_is_ignored():
    upright, turned = rgb(7, 40, 20), rgb(7, 40, 20, exif=rotated_by_exif())
    assert upright != turned
    assert (array(upright)[0] == array(turned)[0]).all()
    assert decode(turned)[0].size == (40, 20)


WHOLE = {
    "baseline": rgb(8, 60, 45),
    "progressive": rgb(8, 60, 45, progressive=True),
    "grey": encoded(plain("L", 1)),
    "cmyk": encoded(plain("CMYK", 4)),
    "png": encoded(plain("RGB", 3), "PNG"),
}


@pytest.mark.parametrize("name", sorted(set(WHOLE) - {"png"}))
@settings(deadline=None, max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_jpeg_that_was_cut_off_anywhere_is_refused(name, share):
    data = WHOLE[name]
    decode(data)
    with pytest.raises(UnreadableError):
        decode(data[: int(share * len(data))])


def test_a_png_that_was_cut_off_is_refused():
    """In its pixels; the marks behind them hold nothing."""
    data = WHOLE["png"]
    for length in range(len(data) - 40):
        with pytest.raises(UnreadableError):
            decode(data[:length])


@pytest.mark.parametrize("name", sorted(WHOLE))
@settings(deadline=None, max_examples=80)
@given(st.data())
def test_damaged_bytes_give_a_picture_or_one_line(name, data):
    broken = bytearray(WHOLE[name])
    for _ in range(data.draw(st.integers(1, 8))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(UnreadableError):  # anything else is a bug
        assert decode(bytes(broken))[0].mode == "RGB"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"<html>404</html>", "it is no JPEG or PNG"),
        (bytes(1000), "it is no JPEG or PNG"),
        (encoded(plain("RGB", 3), "GIF"), "it is no JPEG or PNG"),
        (encoded(plain("RGB", 3), "TIFF"), "it is no JPEG or PNG"),
        (WHOLE["baseline"][:-30], "truncated"),
        (rgb(9, 1, 101), "its sides are 1 and 101 pixels"),
    ],
    ids=["empty", "page", "zeros", "gif", "tiff", "truncated", "thin"],
)
def test_what_is_refused_says_why(data, reason):
    with pytest.raises(UnreadableError, match=re.escape(reason)):
        decode(data)


def test_a_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableError, match="exceeds limit"):
        decode(rgb(1, 30, 30))


def test_versions_name_the_decoder():
    found = versions()
    assert found["pillow"].split(".")[0].isdigit()
    assert any(name.startswith("libjpeg") for name in found)
