"""A picture in the terminal: by the terminal's own protocol where it has one, else in half blocks of two colours."""

import base64
import io
import os

from PIL import Image
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

HALF = "▀"
KITTY_CHUNK = 4096
"""The most bytes of one escape sequence, by kitty's protocol."""


def show(picture: Image.Image, to: Console) -> None:
    """Print a picture if `to` is a terminal with colours; else nothing."""
    if not to.is_terminal or to.color_system is None:
        return
    program = os.environ.get("TERM_PROGRAM", "")
    if "KITTY_WINDOW_ID" in os.environ or os.environ.get("TERM") == "xterm-kitty" or program == "ghostty":
        to.file.write(kitty(picture))
    elif program in ("iTerm.app", "WezTerm"):
        to.file.write(iterm(picture))
    elif to.color_system == "truecolor":
        to.print(blocks(picture, to.width))


def iterm(picture: Image.Image) -> str:
    """iTerm2's escape sequence of an image."""
    data = _png(picture)
    return f"\x1b]1337;File=inline=1;size={len(data)}:{base64.b64encode(data).decode()}\x07\n"


def kitty(picture: Image.Image) -> str:
    """Kitty's escape sequences of an image, in pieces."""
    data = base64.b64encode(_png(picture)).decode()
    pieces = [data[start : start + KITTY_CHUNK] for start in range(0, len(data), KITTY_CHUNK)]
    out = []
    for place, piece in enumerate(pieces):
        head = "f=100,a=T," if place == 0 else ""
        out.append(f"\x1b_G{head}m={int(place != len(pieces) - 1)};{piece}\x1b\\")
    return "".join(out) + "\n"


def blocks(picture: Image.Image, columns: int) -> Text:
    """Two pixels to a character, the upper one its ink and the lower one its ground; at most `columns` wide."""
    width = min(columns, picture.width)
    height = max(2, round(picture.height * width / picture.width) // 2 * 2)
    small = picture.convert("RGB").resize((width, height), Image.Resampling.BOX)
    pixels = small.load()
    assert pixels is not None  # noqa: S101  a resized picture is in memory
    text = Text()
    for row in range(0, height, 2):
        for column in range(width):
            ink, ground = (Color.from_rgb(*pixels[column, row + below][:3]) for below in (0, 1))  # type: ignore[index]
            text.append(HALF, Style(color=ink, bgcolor=ground))
        text.append("\n")
    return text


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, format="PNG")
    return out.getvalue()
