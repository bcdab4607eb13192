"""CLIP's image encoder by open_clip (Radford et al. 2021, arXiv 2103.00020).

Fréchet distances on its features: Kynkaanniemi et al. 2023, arXiv 2203.06026.
"""

import functools
from pathlib import Path

import open_clip
import torch
from open_clip.transformer import QuickGELU, VisionTransformer

from tokenmark import weights
from tokenmark.contracts import Release
from tokenmark.extractors.base import Encoder, Recipe, Tensors
from tokenmark.resize import Resize


def build(architecture: str, tensors: Tensors, path: Path, resize: Resize, dtype: torch.dtype) -> Encoder:
    """The image side of an open_clip transformer, with OpenAI's activation; the text side of the file is left out.

    Features are the projected class token, not scaled to length one.

    Raises:
        WeightsError: the tensors are not this architecture's.
    """
    config = open_clip.get_model_config(architecture)
    vision = config["vision_cfg"]
    visual = VisionTransformer(
        image_size=vision["image_size"],
        patch_size=vision["patch_size"],
        width=vision["width"],
        layers=vision["layers"],
        heads=vision["width"] // vision.get("head_width", 64),
        mlp_ratio=vision.get("mlp_ratio", 4.0),
        output_dim=config["embed_dim"],
        act_layer=QuickGELU,
    )
    prefix = "visual."
    images = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    weights.fill_strict(visual, images, path)
    statistics = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return Encoder(visual, vision["image_size"], resize, dtype, *statistics)


VIT_L14 = Recipe(
    Release("timm/vit_large_patch14_clip_224.openai", "open_clip_model.safetensors", licence="MIT"),
    "pil-bicubic",
    functools.partial(build, "ViT-L-14"),
)
