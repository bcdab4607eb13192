"""The MaskGIT generator over the codes of the trained TiTok."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from recipes.mini.training import Batch, Recipe
from reference_impls.generators.titok_maskgit import METHOD
from tokenmark import build
from tokenmark.contracts import Tokenizer
from tokenmark.data.prepared import PreparedData


def tokenizer() -> Tokenizer:
    """The trained TiTok that the generator writes for."""
    return build.tokenizer("titok", "mini-16", torch.device("cpu"))


def masked_loss() -> Callable[[nn.Module, Batch], Tensor]:
    """Masked-token cross-entropy with classes dropped now and then (MaskGIT, section 3.2)."""
    found: Tokenizer | None = None

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        nonlocal found
        found = found or cast("Tokenizer", cast("nn.Module", tokenizer()).to(batch.images.device))
        codes = found.encode(batch.images).codes
        return cast("Tensor", cast("Any", model).loss(codes, batch.labels, batch.generator))

    return loss


def held_out_loss(model: nn.Module, data: PreparedData) -> dict[str, float]:
    """The same loss on the held-out digits, with fixed masks."""
    images, labels = data.batch(0, len(data))
    codes = tokenizer().encode(images).codes
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        losses = [float(cast("Any", model).loss(codes, labels, generator)) for _ in range(8)]
    return {"masked_cross_entropy": sum(losses) / len(losses)}


MASKGIT = Recipe(
    name="titok-maskgit-mini-16",
    package="reference_impls",
    build=lambda: cast("nn.Module", METHOD.build(tokenizer(), **METHOD.variants["mini-16"].config)),
    loss=masked_loss(),
    epochs=250,
    lr=2e-3,
    reaches=held_out_loss,
    needs=("titok-mini-16",),
    source="MaskGIT, arXiv 2202.04200, section 3.2, and TiTok, arXiv 2406.07550: arccos masks, 10 % dropped classes",
    differs="codes are made from augmented digits on the fly",
)
