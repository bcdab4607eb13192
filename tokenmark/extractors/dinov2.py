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

from tokenmark import weights
from tokenmark.contracts import Release
from tokenmark.extractors.base import Encoder, Recipe, Tensors
from tokenmark.resize import Resize

SIDE = 224


def build(architecture: str, tensors: Tensors, path: Path, resize: Resize, dtype: torch.dtype) -> Encoder:
    """The model at 224 px, whose features are the class token behind the last norm.

    The release's positions are of 518 px: timm resamples them, with a filter that is not quite Meta's own.

    Raises:
        WeightsError: the tensors are not this architecture's.
    """
    model = cast("VisionTransformer", timm.create_model(architecture, pretrained=False, img_size=SIDE, num_classes=0))
    weights.fill_strict(model, checkpoint_filter_fn(dict(tensors), model), path)
    return Encoder(model, SIDE, resize, dtype, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


VIT_L14 = Recipe(
    Release("timm/vit_large_patch14_dinov2.lvd142m", licence="Apache-2.0"),
    "pil-bicubic",
    functools.partial(build, "vit_large_patch14_dinov2"),
)
