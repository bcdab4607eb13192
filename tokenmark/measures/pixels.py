"""PSNR, SSIM and the like per image, averaged over images (never over batch means)."""

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from tokenmark.measures.base import PerImage, State, concatenated, mean_value
from tokenmark.records import Value

PSNR_CEILING = 100.0
"""Decibels given to an image that came back without any error."""


def psnr(images: Tensor, originals: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image `(B, 3, H, W)` in [0, 1], in dB: -10 log10 of its mean squared error."""
    error = (images.double() - originals.double()).square().mean(dim=(1, 2, 3))
    return (-10.0 * error.clamp_min(10.0 ** (-PSNR_CEILING / 10.0)).log10()).clamp_max(PSNR_CEILING)


def ssim(images: Tensor, originals: Tensor) -> Tensor:
    """Structural similarity of each image (Wang et al. 2004: Gaussian window of 11, sigma 1.5; data range 1)."""
    result = structural_similarity_index_measure(images, originals, data_range=1.0, reduction="none")
    assert isinstance(result, Tensor)  # noqa: S101  a tuple only where the full image is asked for
    return result.reshape(-1)


Comparison = Callable[[Tensor, Tensor], Tensor]
"""Images and originals `(B, 3, H, W)` in [0, 1] to one value for each pair, `(B,)`."""


class PixelMeasure:
    """The mean over images of `psnr`, `ssim`, or of a comparison that was loaded (`lpips.load`)."""

    def __init__(self, name: str, comparison: Comparison | None = None) -> None:
        self.name = name
        self._function = comparison or {"psnr": psnr, "ssim": ssim}[name]
        self._values = PerImage()

    def update(self, images: Tensor, originals: Tensor) -> None:
        """Add one batch."""
        self._values.add(self._function(images, originals).double().cpu().numpy())

    def state(self) -> State:
        """The value of every image so far."""
        return {"values": self._values.all()}

    def load(self, state: State) -> None:
        """Take over the values of an unfinished run."""
        self._values.replace(state["values"])

    def join(self, states: Sequence[State]) -> State:
        """Values one after the other."""
        return concatenated(states)

    def compute(self) -> list[Value]:
        """The mean with its standard error."""
        return [mean_value(self.name, np.asarray(self._values.all()))]
