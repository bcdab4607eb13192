"""DINOv2 by timm (Oquab et al. 2023, arXiv 2304.07193).

Fréchet distances on its features: Stein et al. 2023, arXiv 2306.04675.
"""

import functools
from pathlib import Path
from typing import cast

import timm
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from tokenmark import weights
from tokenmark.contracts import Release
from tokenmark.extractors.base import Extractor, Outputs, Recipe, Tensors
from tokenmark.resize import Resize

SIDE = 224


class DINOv2(Extractor):
    """`features` `(B, width)`: the class token behind the last norm."""

    def __init__(self, model: nn.Module, resize: Resize, dtype: torch.dtype) -> None:
        mean, std = (tuple(255.0 * value for value in x) for x in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
        super().__init__(SIDE, resize, dtype, mean, std)
        self.model = model.to(dtype)

    def forward(self, images: Tensor) -> Outputs:
        """Images `(B, 3, H, W)`, uint8 or floats in [0, 1], to features."""
        return Outputs(self.model(self.prepared(images)).float())


def build(architecture: str, tensors: Tensors, path: Path, resize: Resize, dtype: torch.dtype) -> DINOv2:
    """The model at 224 px; positions of 518 px are resampled by timm, whose filter is not quite Meta's own.

    Raises:
        WeightsError: the tensors are not this architecture's.
    """
    model = cast("VisionTransformer", timm.create_model(architecture, pretrained=False, img_size=SIDE, num_classes=0))
    weights.fill_strict(model, checkpoint_filter_fn(dict(tensors), model), path)
    return DINOv2(model, resize, dtype)


VIT_L14 = Recipe(
    Release("timm/vit_large_patch14_dinov2.lvd142m", licence="Apache-2.0"),
    "pil-bicubic",
    functools.partial(build, "vit_large_patch14_dinov2"),
)
