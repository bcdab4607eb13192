"""The bytes of one picture file as RGB, whatever its colours are, or the reason why not.

Every rule is what `Image.convert("RGB")` does, as all protocols here call it, except for 16-bit grey, which Pillow
would clip: alpha is dropped, not blended; a palette is looked up; CMYK is converted without a colour profile;
embedded profiles and EXIF rotation are ignored.
"""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError, features

FORMATS = ("JPEG", "PNG")
"""All that ImageNet holds (one of its .JPEG files is a PNG); decoders that are not needed are not offered the bytes."""
LONGEST_RATIO = 100
"""Sides of a picture. What is thinner would need gigabytes when its short side is enlarged."""


class UnreadableError(Exception):
    """A file that cannot become pixels; the text says why."""


def decode(data: bytes) -> tuple[Image.Image, str]:
    """The picture in RGB, and what it was: format and mode, such as `JPEG RGB`, `JPEG CMYK` or `PNG P`.

    Raises:
        UnreadableError: the bytes are no whole JPEG or PNG.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            kind = f"{image.format} {image.mode}"
            if max(image.size) > LONGEST_RATIO * min(image.size):
                raise UnreadableError(f"its sides are {image.width} and {image.height} pixels")
            image.load()
            return _rgb(image), kind
    except UnreadableError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableError("it is empty" if not data else "it is no JPEG or PNG") from error
    except Exception as error:  # a decoder may raise anything on damaged bytes
        raise UnreadableError(" ".join(str(error).split()) or type(error).__name__) from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: the high byte, as Pillow reads 16-bit colour
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    return image.convert("RGB")


def versions() -> dict[str, str]:
    """Versions of the libraries whose arithmetic is in the pixels."""
    turbo = features.version("libjpeg_turbo")
    jpeg = {"libjpeg-turbo": turbo} if turbo else {"libjpeg": features.version("jpg") or "unknown"}
    return {"pillow": str(features.version("pil")), **jpeg}
