"""Pictures that lie beside a record."""

import io

import numpy as np
from PIL import Image
from torch import Tensor

GAP = 2
SCALE, LARGE = 2, 128
"""How often small images are enlarged, and from which height not: 20 of 256 px took seconds to compress."""


def grid(images: Tensor, columns: int) -> bytes:
    """PNG of images `(N, 3, H, W)` in [0, 1], row by row, small ones twice enlarged, on a grey ground."""
    pixels = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    n, height, width, _ = pixels.shape
    rows = -(-n // columns)
    canvas = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), 96, np.uint8)
    for place, image in enumerate(pixels):
        top, left = GAP + place // columns * (height + GAP), GAP + place % columns * (width + GAP)
        canvas[top : top + height, left : left + width] = image
    picture = Image.fromarray(canvas)
    if height < LARGE:
        picture = picture.resize((picture.width * SCALE, picture.height * SCALE), Image.Resampling.NEAREST)
    out = io.BytesIO()
    picture.save(out, format="PNG", optimize=True)
    return out.getvalue()
