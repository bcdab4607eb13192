"""Classifiers by name, whose tokens are reduced, behind their own normalisation.

`vit-mini` comes with trained weights, `clip:ViT-B-16/openai` is open_clip's (see `zeroshot.py`). Any model of timm's is
there under its name with a tag, timm's own way to say which weights: `deit_small_patch16_224.fb_in1k` has those that
timm's authors published, `deit_small_patch16_224.random` has random ones, for speed alone.
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import timm
import torch
from timm.layers.layer_scale import LayerScale
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tokenmark import weights
from tokenmark.contracts import Release
from tokenmark.errors import MethodError, UnknownNameError
from tokenmark.shelf import Shelf
from tokenmark.weights import Weights


@dataclass(frozen=True, slots=True)
class Backbone:
    """One named classifier. Images in [0, 1] are normalised by `mean` and `std` before it sees them."""

    sizes: Mapping[str, Any]
    weights: str | None
    """Name of bundled weights, if it has such."""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    blank: Callable[..., nn.Module] = VisionTransformer
    shape: tuple[int, int, int] = (3, 32, 32)
    """Channels, height and width of its images."""
    release: Release | None = None
    """Where its weights were published, if they were."""
    classes: str = ""
    """For a model that gives embeddings: the name by which `head_of` finds its classes."""

    @property
    def random(self) -> bool:
        """Whether its weights are drawn, and so know nothing."""
        return self.weights is None and self.release is None

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
CLIP = "clip:"
"""Before the names of open_clip's: `clip:ViT-B-16/openai` (see `zeroshot.py`)."""


def drawn(name: str) -> str:
    """The name of a model with drawn weights, for its cost or speed alone; one that says which weights stays.

    `deit_small_patch16_224` is timm's, `clip:ViT-B-16` open_clip's; `vit-mini` has only its own.
    """
    if name in BACKBONES:
        return name
    if name.startswith(CLIP):
        return name if "/" in name else f"{name}/random"
    return name if "." in name else name + RANDOM


def get(name: str) -> Backbone:
    """The backbone called `name`.

    Raises:
        UnknownNameError: there is none of that name.
        MethodError: a model of timm's without a tag, which would be other weights in other versions of timm.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    if name.startswith(CLIP):
        return _of_open_clip(name)
    architecture, dot, _ = name.partition(".")
    known = timm.list_models()
    if architecture not in known:
        if dot:
            raise UnknownNameError("timm model", architecture, known)
        near = difflib.get_close_matches(name, known, cutoff=0.8)
        raise UnknownNameError("model", name, [*BACKBONES, *near])
    tags = timm.list_pretrained(f"{architecture}.*")
    if not dot:
        raise MethodError(f"{name} does not say which weights: choose {', '.join([*tags, name + RANDOM])}")
    drawn = _of_timm(architecture, timm.get_pretrained_cfg(architecture))
    if name == architecture + RANDOM:  # a drawn model classifies, also where its release only embeds
        return dataclasses.replace(drawn, sizes={**drawn.sizes, "num_classes": 1000})
    if name not in tags:
        raise UnknownNameError("timm model", name, [*tags, architecture + RANDOM])
    return _released(name)


def _of_timm(name: str, config: Any) -> Backbone:
    """A model of timm's without weights, under the normalisation and sizes of one of its releases."""
    return Backbone(
        sizes={"model_name": name, "pretrained": False},
        weights=None,
        mean=config.mean,
        std=config.std,
        blank=timm.create_model,
        shape=config.input_size,
    )


def _of_open_clip(name: str) -> Backbone:
    """An image tower of open_clip's, which gives embeddings."""
    from tokenmark import zeroshot  # noqa: PLC0415  open_clip takes seconds to import, and few runs need it

    known = zeroshot.facts(name)
    return Backbone(
        sizes={"name": name},
        weights=None,
        mean=known["mean"],
        std=known["std"],
        blank=zeroshot.image_tower,
        shape=(3, known["size"], known["size"]),
        release=zeroshot.release(name),
        classes=name,
    )


def _released(name: str) -> Backbone:
    config: Any = timm.get_pretrained_cfg(name)
    if not config.hf_hub_id:
        raise MethodError(f"timm names no file on the hub for {name}: choose another tag")
    if not config.num_classes:
        raise MethodError(f"{name} was published without a classifier: choose another tag")
    release = Release(config.hf_hub_id, config.hf_hub_filename or "model.safetensors", licence=config.license or "")
    blank = _of_timm(name, config)
    return dataclasses.replace(blank, sizes={**blank.sizes, "num_classes": config.num_classes}, release=release)


def weights_of(name: str, shelf: Shelf | None = None) -> Weights | None:
    """The weights of a classifier: bundled, or published ones from the shelf; None stands for random ones.

    Raises:
        UnknownNameError: no such backbone.
        MissingWeightsError: published ones that are not here.
        WeightsError: they are altered, or bundled ones are not there.
    """
    backbone = get(name)
    if backbone.weights is not None:
        return weights.bundled("tokenmark", backbone.weights)
    if backbone.release is not None:
        return (shelf or Shelf()).find(backbone.release, name)
    return None


def load(
    name: str,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    shelf: Shelf | None = None,
) -> nn.Module:
    """A classifier in evaluation mode, in the given type, without its normalisation (see `Normalised`).

    `seed` draws the weights of those that have random ones; published ones come from the shelf.

    Raises:
        UnknownNameError: no such backbone.
        WeightsError: its weights are missing, altered or do not fit.
    """
    backbone, found = get(name), weights_of(name, shelf)
    if found is None:
        model = _random(backbone, seed)
    elif backbone.classes:
        from tokenmark import zeroshot  # noqa: PLC0415  as above

        model = cast("nn.Module", zeroshot.load(name, shelf or Shelf()).visual)
    else:
        model = backbone.build()
        weights.load_strict(model, found.path)
    return model.to(device, dtype).eval().requires_grad_(requires_grad=False)


def head_of(name: str, device: torch.device, seed: int = 0, shelf: Shelf | None = None) -> nn.Module | None:
    """What makes class scores of a model's embeddings; None for a model that gives class scores itself.

    Raises:
        WeightsError: its weights are missing, altered or do not fit.
    """
    if not get(name).classes:
        return None
    from tokenmark import zeroshot  # noqa: PLC0415  as above

    return zeroshot.head(name, shelf or Shelf(), seed).to(device).eval()


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
    """A classifier that takes float32 images in [0, 1], whatever type it runs in; `head` follows the model."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, model: nn.Module, head: nn.Module | None = None) -> None:
        super().__init__()
        self.model = model
        self.head = nn.Identity() if head is None else head
        self.dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
        self.register_buffer("mean", torch.tensor(backbone.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 3, H, W)` in [0, 1] to logits `(B, classes)`, in the model's type."""
        return cast("Tensor", self.head(self.model(self.normalise(images))))

    def normalise(self, images: Tensor) -> Tensor:
        """What the model takes for images in [0, 1]."""
        return ((images - self.mean) / self.std).to(self.dtype)
