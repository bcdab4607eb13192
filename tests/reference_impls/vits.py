"""Small vision transformers for the reducers' tests, and what their norms really see."""

import functools

import torch
from timm import create_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from recipes.small_vits import SERVED, SMALL, clip_tower, images_for, randomised, served
from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.parity._taps import tapped
from tokenmark.contracts import BlockTokens

__all__ = [
    "SERVED",
    "SMALL",
    "VisionTransformer",
    "clip_tower",
    "create_model",
    "images_for",
    "kept",
    "randomised",
    "seen_schedule",
    "served",
]


kept = functools.cache(served)
"""The named model, made once: for tests that change nothing in it."""


def seen_schedule(reduced: ReducedViT, images: Tensor, *, inside: bool = False) -> tuple[BlockTokens, ...]:
    """The token counts that the norms before every attention and every MLP really see.

    `inside`: those that attention itself sees, where a method changes them behind the norm.
    """
    views = reduced.backbone.blocks
    blocks = [view.block for view in views]
    parts = ("norm1", "norm2") if hasattr(blocks[0], "norm1") else ("ln_1", "ln_2")
    modules = {f"{i}.{at}": getattr(block, part) for i, block in enumerate(blocks) for at, part in enumerate(parts)}
    split = [view.attention.split for view in views]
    with torch.no_grad(), tapped(modules) as seen:
        for i, view in enumerate(views if inside else ()):
            view.attention.split = lambda x, i=i: split[i](seen.setdefault(f"{i}.inside", x))
        reduced(images)
    at = "inside" if inside else "0"
    return tuple(BlockTokens(seen[f"{i}.{at}"].shape[1], seen[f"{i}.1"].shape[1]) for i in range(len(blocks)))
