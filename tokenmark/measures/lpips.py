"""LPIPS (Zhang et al. 2018, arXiv 1801.03924), version 0.1: torchmetrics' network, with its weights from files.

torchmetrics carries the linear layers on top. The backbone below is torchvision's, trained on ImageNet, which
torchmetrics would download: here its file is found on the shelf and checked like any other weights.
"""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torchmetrics.functional.image.lpips import _NoTrainLpips

from tokenmark import shelf as shelves
from tokenmark import weights as strictly
from tokenmark.errors import DataError
from tokenmark.shelf import Shelf
from tokenmark.weights import Weights, WeightsFile

Net = Literal["alex", "vgg"]
"""AlexNet is what the authors advise for measuring; some tokenizers report VGG, which they were trained with."""

FILES: dict[Net, WeightsFile] = {
    "alex": WeightsFile(
        "alexnet-owt-7be5be79.pth",
        "torchvision (AlexNet_Weights.IMAGENET1K_V1)",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    ),
    "vgg": WeightsFile(
        "vgg16-397923af.pth",
        "torchvision (VGG16_Weights.IMAGENET1K_V1)",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        "https://download.pytorch.org/models/vgg16-397923af.pth",
    ),
}

SMALLEST: dict[Net, int] = {"alex": 31, "vgg": 16}
"""Pixels below which a backbone's last layers would see nothing."""


class LPIPS(nn.Module):
    """Distances of pairs of images."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self._smallest = SMALLEST[net]
        self.network = _NoTrainLpips(net=net, pnet_rand=True)

    def forward(self, images: Tensor, originals: Tensor) -> Tensor:
        """Images and originals `(B, 3, H, W)` in [0, 1] to `(B,)`: 0 for equals, about 1 at most.

        Raises:
            DataError: the images are too small for the backbone.
        """
        if min(images.shape[-2:]) < self._smallest:
            raise DataError(
                f"LPIPS needs images of at least {self._smallest} px, not {images.shape[-2]} x {images.shape[-1]}:"
                " leave out the measure 'lpips'"
            )
        result = self.network(images, originals, normalize=True)
        assert isinstance(result, Tensor)  # noqa: S101  a tuple only where layers are asked for
        return result.reshape(-1)


def check(net: Net, shelf: Shelf | None = None) -> Weights:
    """The published weights of a backbone, as they lie on the shelf (the default one if none is given).

    Raises:
        WeightsError: they are missing or altered.
    """
    return (shelf or Shelf()).find(FILES[net], f"lpips-{net}")


def load(
    net: Net,
    device: torch.device,
    *,
    weights: Path | None = None,
    sha256: str | None = None,
    shelf: Shelf | None = None,
) -> LPIPS:
    """LPIPS on `device`, in evaluation mode; `weights`, `sha256` and `shelf` as in `extractors.load`.

    Raises:
        WeightsError: the backbone's weights are missing, altered or do not fit.
    """
    path = (shelves.given(FILES[net], weights, sha256) if weights else check(net, shelf)).path
    tensors = strictly.read(path)
    model = LPIPS(net)
    # Layers keep their number in torchvision's `features`, behind the name of the slice that they were put into.
    numbers = {key.partition(".")[2]: key for key in model.network.net.state_dict()}
    prefix = "features."
    layers = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    strictly.fill_strict(model.network.net, {numbers.get(key, key): value for key, value in layers.items()}, path)
    return model.to(device).eval().requires_grad_(requires_grad=False)
