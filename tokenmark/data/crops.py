"""How pictures of any size become squares: named rules, each a pure function of the picture's pixels.

A reference and what is measured against it must be cropped alike: papers differ here, and their numbers with it.
All rules resize with Pillow on uint8, which widens its filters where it shrinks (antialiasing).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class CropRule:
    """A rule: `apply(image, side)` takes an RGB picture and gives uint8 `(side, side, 3)`."""

    name: str
    about: str
    apply: Callable[[Image.Image, int], Pixels]


def adm(image: Image.Image, side: int) -> Pixels:
    """Halve by box filter while the short side is at least twice `side`, then bicubic; sides round to nearest.

    Guided diffusion's rule (Dhariwal and Nichol, 2021), and so that of LlamaGen, GigaTok, RAE and MAR.
    """
    while min(image.size) >= 2 * side:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = side / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    image = image.resize(size, Image.Resampling.BICUBIC)
    return _cut(image, (image.width - side) // 2, (image.height - side) // 2, side)


def bicubic(image: Image.Image, side: int) -> Pixels:
    """Bicubic to `side` on the short side, centre crop, with torchvision's rounding: TiTok's rule."""
    return centre_only(_shrunk(image, side, Image.Resampling.BICUBIC), side)


def lanczos(image: Image.Image, side: int) -> Pixels:
    """Lanczos to `side` on the short side, centre crop, with torchvision's rounding: an option of bsq-vit."""
    return centre_only(_shrunk(image, side, Image.Resampling.LANCZOS), side)


def bicubic_875(image: Image.Image, side: int) -> Pixels:
    """Bicubic to 8/7 of `side` on the short side, centre crop: DeiT's rule, 256 for 224."""
    return centre_only(_shrunk(image, int(side * 256 / 224), Image.Resampling.BICUBIC), side)


def bicubic_900(image: Image.Image, side: int) -> Pixels:
    """Bicubic to `side` / 0.9, rounded down, on the short side, centre crop: timm's rule, 248 for 224."""
    return centre_only(_shrunk(image, math.floor(side / 0.9), Image.Resampling.BICUBIC), side)


def centre_only(image: Image.Image, side: int) -> Pixels:
    """Cut the centre without resizing; what is too small stands on black. torchvision's centre crop: ALIT and KARL."""
    left, right = _margins(image.width, side)
    top, bottom = _margins(image.height, side)
    if left or right or top or bottom:
        ground = Image.new("RGB", (image.width + left + right, image.height + top + bottom))
        ground.paste(image, (left, top))
        image = ground
    # half a pixel goes to the even neighbour, as torchvision's round() has it
    return _cut(image, round((image.width - side) / 2), round((image.height - side) / 2), side)


def _shrunk(image: Image.Image, side: int, filter_: Image.Resampling) -> Image.Image:
    """The short side becomes `side`; the long side is rounded down, as torchvision does."""
    short, long = min(image.size), max(image.size)
    far = int(side * long / short)
    return image.resize((side, far) if image.width <= image.height else (far, side), filter_)


def _margins(length: int, side: int) -> tuple[int, int]:
    missing = max(side - length, 0)
    return missing // 2, (missing + 1) // 2


def _cut(image: Image.Image, left: int, top: int, side: int) -> Pixels:
    return np.array(image.crop((left, top, left + side, top + side)), np.uint8)


CROPS = {
    rule.name: rule
    for rule in (
        CropRule("adm", "halved by box filter while twice too large, bicubic, centre crop (guided diffusion)", adm),
        CropRule("bicubic", "bicubic on the short side, centre crop (TiTok)", bicubic),
        CropRule("bicubic-875", "bicubic to 8/7 of the size on the short side, centre crop (DeiT, ToMe)", bicubic_875),
        CropRule("bicubic-900", "bicubic to 1/0.9 of the size on the short side, centre crop (timm)", bicubic_900),
        CropRule("centre-only", "centre crop without resizing, small pictures on black (ALIT, KARL)", centre_only),
        CropRule("lanczos", "Lanczos on the short side, centre crop (bsq-vit)", lanczos),
    )
}
