"""The embedded default: scikit-learn's handwritten digits, real scans of the UCI collection, at 32 x 32 RGB.

1,797 images of 8 x 8 pixels with 17 grey levels (Alpaydin and Kaynak, 1998). Each is enlarged with Pillow's bicubic
filter and repeated over the three colours. Held out: 50 of each class, evenly spaced in the collection's order, so
that all writers are on both sides; 500 in all, 1,297 remain.
"""

import importlib.metadata
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from tokenmark.data import prepared

NAME = "digits-32"
SIDE, HELD_OUT_PER_CLASS, LEVELS = 32, 50, 16


def prepare(folder: Path) -> None:
    """Write `train` and `val` below `folder`."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  scikit-learn takes a second to import

    raw = load_digits()
    labels = raw.target.astype(np.int64)
    pixels = np.stack([_enlarge(scan) for scan in raw.images])
    held_out = _held_out(labels)
    source = f"sklearn.datasets.load_digits, scikit-learn {importlib.metadata.version('scikit-learn')}"
    for split, chosen in (("train", ~held_out), ("val", held_out)):
        prepared.write(
            folder / split,
            pixels[chosen],
            labels[chosen],
            name=NAME,
            split=split,
            source=source,
            crop="whole 8 x 8 scan, level * 255 / 16 rounded, Pillow bicubic to 32 x 32, grey repeated to RGB",
        )


def _enlarge(scan: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    grey = Image.fromarray(np.round(scan * (255.0 / LEVELS)).astype(np.uint8))
    large = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return np.repeat(large[:, :, None], 3, axis=2)


def _held_out(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        mask[places[np.linspace(0, len(places) - 1, HELD_OUT_PER_CLASS).round().astype(int)]] = True
    return mask
