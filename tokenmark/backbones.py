"""Classifiers by name, whose tokens are reduced: timm vision transformers behind their own normalisation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tokenmark import weights
from tokenmark.errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class Backbone:
    """One named classifier. Images in [0, 1] are normalised by `mean` and `std` before it sees them."""

    sizes: Mapping[str, Any]
    weights: str
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    blank: Callable[..., nn.Module] = VisionTransformer

    def build(self) -> nn.Module:
        """The model without weights."""
        return self.blank(**self.sizes)


BACKBONES = {
    "vit-mini": Backbone(
        sizes={"img_size": 32, "patch_size": 4, "embed_dim": 48, "depth": 12, "num_heads": 3, "num_classes": 10},
        weights="vit-mini",
    ),
}


def get(name: str) -> Backbone:
    """The backbone called `name`.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name not in BACKBONES:
        raise UnknownNameError("model", name, BACKBONES)
    return BACKBONES[name]


def load(name: str, device: torch.device) -> nn.Module:
    """A classifier with its weights, in evaluation mode, without its normalisation (see `Normalised`).

    Raises:
        UnknownNameError: no such backbone.
        WeightsError: its weights are missing, altered or do not fit.
    """
    backbone = get(name)
    model = backbone.build()
    weights.load_strict(model, weights.bundled("tokenmark", backbone.weights).path)
    return model.to(device).eval().requires_grad_(requires_grad=False)


class Normalised(nn.Module):
    """A classifier that takes images in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 3, H, W)` in [0, 1] to logits `(B, classes)`."""
        return cast("Tensor", self.model((images - self.mean) / self.std))
