"""Feature networks by name. Protocol `mini` has a small classifier of its own."""

from typing import cast

import torch
from torch import Tensor, nn

from tokenmark import weights
from tokenmark.errors import chosen


class MiniFeatures(nn.Module):
    """Four convolutions, 64 features, ten classes: what `mini` uses in Inception's place.

    Images `(B, 3, 32, 32)` in [0, 1]. It is trained on the digits' training split alone.
    """

    def __init__(self, dimensions: int = 64, classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(3, 32, stride=1),
            *_convolution(32, 64, stride=2),
            *_convolution(64, 96, stride=2),
            *_convolution(96, 96, stride=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(96, dimensions),
        )
        self.head = nn.Linear(dimensions, classes)

    def features(self, images: Tensor) -> Tensor:
        """`(B, 64)`: the last linear layer before the classes, without activation."""
        return cast("Tensor", self.body(images * 2.0 - 1.0))

    def classes(self, features: Tensor) -> Tensor:
        """Class scores `(B, 10)` of features `(B, 64)`."""
        return cast("Tensor", self.head(torch.relu(features)))

    def forward(self, images: Tensor) -> Tensor:
        """Class scores `(B, 10)` of images."""
        return self.classes(self.features(images))


def _convolution(before: int, after: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]


NETWORKS = {"mini-features": MiniFeatures}


def check(name: str) -> weights.Weights:
    """The weights of a feature network, whose bytes are those of its card.

    Raises:
        UnknownNameError: no network of that name.
        WeightsError: its weights are missing or altered.
    """
    chosen("feature network", name, NETWORKS)
    return weights.bundled("tokenmark", name)


def load(name: str, device: torch.device) -> MiniFeatures:
    """A feature network on `device`, in evaluation mode.

    Raises:
        UnknownNameError: no network of that name.
        WeightsError: its weights are missing or altered.
    """
    found = check(name)
    module = NETWORKS[name]()
    weights.load_strict(module, found.path)
    return module.to(device).eval().requires_grad_(requires_grad=False)
