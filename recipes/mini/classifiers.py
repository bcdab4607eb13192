"""The two classifiers: the ViT whose tokens are reduced, and the network whose features measure distances."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from recipes.mini.training import Batch, Recipe
from tokenmark import backbones
from tokenmark.data.prepared import PreparedData
from tokenmark.measures.features import MiniFeatures


def build_vit() -> nn.Module:
    """The blank ViT with drop-path and its normalisation around it."""
    backbone = backbones.get("vit-mini")
    model = backbone.blank(**backbone.sizes, drop_path_rate=0.1)
    return backbones.Normalised(backbone, model)


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy with label smoothing 0.1 (DeiT, Touvron et al. 2021, section 6)."""
    return functional.cross_entropy(model(batch.images), batch.labels, label_smoothing=0.1)


def top1(model: nn.Module, data: PreparedData) -> dict[str, float]:
    """Share of held-out digits that are classified rightly."""
    images, labels = data.batch(0, len(data))
    with torch.inference_mode():
        return {"top1": float((model(images).argmax(1) == labels).float().mean())}


VIT = Recipe(
    name="vit-mini",
    package="tokenmark",
    build=build_vit,
    loss=cross_entropy,
    epochs=80,
    lr=2e-3,
    reaches=top1,
    source="DeiT, arXiv 2012.12877, section 6: AdamW, cosine decay, label smoothing 0.1, drop-path 0.1, EMA",
    differs="augmentation is small affine changes; no mixup, CutMix, erasing or distillation",
)

FEATURES = Recipe(
    name="mini-features",
    package="tokenmark",
    build=MiniFeatures,
    loss=cross_entropy,
    epochs=30,
    lr=2e-3,
    ema=None,
    reaches=top1,
    seed=1,
    source="plain cross-entropy with label smoothing 0.1",
    differs="its own network: it stands for Inception under protocol mini",
)
