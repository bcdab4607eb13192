"""What every feature extractor gives, and what a name of one stands for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn

from tokenmark.resize import Resize
from tokenmark.weights import Published

Tensors: TypeAlias = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one pass over a batch gives, as float32."""

    features: Tensor
    """`(B, D)`: of Fréchet distances, precision and recall."""
    spatial: Tensor | None = None
    """`(B, D')`: of sFID, where the network has them."""
    logits: Tensor | None = None
    """`(B, classes)`: of the Inception score, where the network has classes."""


class Extractor(nn.Module):
    """A frozen network behind its own resize and normalisation.

    Images are `(B, 3, H, W)`: uint8, or floats in [0, 1] (what was rounded to 255ths comes back to the same levels).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, size: int, resize: Resize, dtype: torch.dtype, mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self._size, self._resize, self._dtype = size, resize, dtype
        for name, values in (("mean", mean), ("std", std)):
            levels = torch.tensor(values, dtype=dtype).view(1, -1, 1, 1)
            self.register_buffer(name, levels, persistent=False)

    def prepared(self, images: Tensor) -> Tensor:
        """What the network itself sees: `(B, 3, size, size)`, resized as grey levels and normalised."""
        levels = images if images.dtype == torch.uint8 else images * 255.0
        return (self._resize(levels.to(self._dtype), self._size) - self.mean) / self.std

    def features(self, images: Tensor) -> Tensor:
        """The features alone, `(B, D)`."""
        return cast("Outputs", self(images)).features


class Encoder(Extractor):
    """An image encoder that gives nothing but features `(B, D)`; `mean` and `std` are of pixels in [0, 1]."""

    def __init__(
        self,
        network: nn.Module,
        size: int,
        resize: Resize,
        dtype: torch.dtype,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__(size, resize, dtype, *(tuple(255.0 * value for value in levels) for levels in (mean, std)))
        self.network = network.to(dtype)

    def forward(self, images: Tensor) -> Outputs:
        """Images `(B, 3, H, W)`, uint8 or floats in [0, 1], to features."""
        return Outputs(self.network(self.prepared(images)).float())


@dataclass(frozen=True, slots=True)
class Recipe:
    """A named extractor: its weights, the resize that it is known with, and how it is built from tensors."""

    file: Published
    resize: str
    build: Callable[[Tensors, Path, Resize, torch.dtype], Extractor]
    """Tensors, the file that they came from, resize and number type; a WeightsError where they do not fit."""
