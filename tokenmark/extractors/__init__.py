"""Feature extractors by name. A name's file is imported only when that name is asked for."""

import importlib
from pathlib import Path

import torch

from tokenmark import resize as resizes
from tokenmark import shelf as shelves
from tokenmark import weights as strictly
from tokenmark.errors import chosen
from tokenmark.extractors.base import Extractor, Outputs, Recipe
from tokenmark.shelf import Shelf
from tokenmark.weights import Weights

PLACES = {
    "inception": "inception:INCEPTION",
    "inception-pytorch-fid": "inception:PYTORCH_FID",
    "dinov2-vit-l14": "dinov2:VIT_L14",
    "clip-vit-l14": "clip:VIT_L14",
}
"""Module in this package and attribute by name."""


def recipe(name: str) -> Recipe:
    """What a name stands for.

    Raises:
        UnknownNameError: there is no extractor of that name.
    """
    module, _, attribute = chosen("feature extractor", name, PLACES).partition(":")
    found = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    assert isinstance(found, Recipe)  # noqa: S101  the table above is ours
    return found


def check(name: str, shelf: Shelf | None = None) -> Weights:
    """The published weights of an extractor, as they lie on the shelf (the default one if none is given).

    Raises:
        UnknownNameError: no such extractor.
        WeightsError: they are missing or altered.
    """
    return (shelf or Shelf()).find(recipe(name).file, name)


def load(
    name: str,
    device: torch.device,
    *,
    weights: Path | None = None,
    sha256: str | None = None,
    resize: str | None = None,
    dtype: torch.dtype = torch.float32,
    shelf: Shelf | None = None,
) -> Extractor:
    """An extractor with its weights on `device`, in evaluation mode and without gradients.

    Args:
        name: one of `PLACES`.
        device: where it computes.
        weights: its weights file, instead of the published one on the shelf.
        sha256: the hash that the file must have, instead of the published one.
        resize: one of `tokenmark.resize.RESIZES`, instead of the one that it is known with.
        dtype: number type inside, float32 or float64.
        shelf: where published weights lie; the default one if none is given.

    Raises:
        UnknownNameError: no such extractor or resize.
        WeightsError: its weights are missing, altered or do not fit.
    """
    known = recipe(name)
    chosen = resizes.get(resize or known.resize)
    found = shelves.given(known.file, weights, sha256) if weights else check(name, shelf)
    extractor = known.build(strictly.read(found.path), found.path, chosen, dtype)
    return extractor.to(device).eval().requires_grad_(requires_grad=False)


__all__ = ["PLACES", "Extractor", "Outputs", "Recipe", "check", "load", "recipe"]
