"""Classifiers by name, whose tokens are reduced: timm vision transformers behind their own normalisation.

`vit-mini` comes with trained weights. Any model of timm's is there with random ones, for speed alone, under its name
with the tag `random` (timm's own way to say which weights): `deit_small_patch16_224.random`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import timm
import torch
from timm.layers.layer_scale import LayerScale
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tokenmark import weights
from tokenmark.errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class Backbone:
    """One named classifier. Images in [0, 1] are normalised by `mean` and `std` before it sees them."""

    sizes: Mapping[str, Any]
    weights: str | None
    """Name of bundled weights; None stands for random ones."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    blank: Callable[..., nn.Module] = VisionTransformer
    shape: tuple[int, int, int] = (3, 32, 32)
    """Channels, height and width of its images."""

    def build(self) -> nn.Module:
        """The model without weights."""
        return self.blank(**self.sizes)


BACKBONES = {
    "vit-mini": Backbone(
        sizes={"img_size": 32, "patch_size": 4, "embed_dim": 48, "depth": 12, "num_heads": 3, "num_classes": 10},
        weights="vit-mini",
    ),
}


RANDOM = ".random"


def get(name: str) -> Backbone:
    """The backbone called `name`.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name.endswith(RANDOM):
        return _of_timm(name.removesuffix(RANDOM))
    if name not in BACKBONES:
        raise UnknownNameError("model", name, BACKBONES)
    return BACKBONES[name]


def _of_timm(name: str) -> Backbone:
    """A model of timm's without its released weights; nothing is downloaded."""
    known = timm.list_models()
    if name not in known:
        raise UnknownNameError("timm model", name, known)
    released: Any = timm.get_pretrained_cfg(name)
    return Backbone(
        sizes={"model_name": name, "pretrained": False},
        weights=None,
        mean=released.mean,
        std=released.std,
        blank=timm.create_model,
        shape=released.input_size,
    )


def load(name: str, device: torch.device, dtype: torch.dtype = torch.float32, seed: int = 0) -> nn.Module:
    """A classifier in evaluation mode, in the given type, without its normalisation (see `Normalised`).

    `seed` draws the weights of those that have random ones.

    Raises:
        UnknownNameError: no such backbone.
        WeightsError: its weights are missing, altered or do not fit.
    """
    backbone = get(name)
    if backbone.weights is None:
        model = _random(backbone, seed)
    else:
        model = backbone.build()
        weights.load_strict(model, weights.bundled("tokenmark", backbone.weights).path)
    return model.to(device, dtype).eval().requires_grad_(requires_grad=False)


def _random(backbone: Backbone, seed: int) -> nn.Module:
    """A model with its architecture's own first weights, drawn from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = backbone.build()
    for module in model.modules():
        if isinstance(module, LayerScale):  # begins at 1e-6 in some, which would hide what the blocks give
            nn.init.ones_(module.gamma)
    return model


class Normalised(nn.Module):
    """A classifier that takes float32 images in [0, 1], whatever type it runs in."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
        self.register_buffer("mean", torch.tensor(backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 3, H, W)` in [0, 1] to logits `(B, classes)`, in the model's type."""
        return cast("Tensor", self.model(((images - self.mean) / self.std).to(self.dtype)))
