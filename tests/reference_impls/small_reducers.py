"""Settings under which every reducer reduces the small models of `vits`, and which of them it cannot serve."""

from collections.abc import Iterable
from typing import Any

from recipes.small_vits import reduced
from tests.reference_impls import vits
from tokenmark import registry
from tokenmark.contracts import ReducerMethod

NOTHING: dict[str, dict[str, Any] | None] = {
    "ats": None,
    "ats-haurum": None,
    "none": {},
    "token-pooling": {"macs_rate": 1.0},
    "zero-tprune": {"macs_rate": 1.0},
    "vwt-intra": {"keep": 1.0},
    "vwt-inter": {"threshold": 0.0},
    "tokenlearner-vit": None,
    "clca": None,
    "cropr": {"r": 0},
    "sparsifiner": {"attn_keep_rate": 1.0},
    "tome": {"r": 0},
    "pitome": {"ratio": 1.0},
    "atc-every-layer": {"r": 0},
    "diffrate": {"prune_kept": (99,) * 4, "merge_kept": (99,) * 4},
    "tomesd": {"ratio": 0.0},
}
"""Settings that reduce nothing, where `keep_rate = 1.0` is not it; None where a method always does something."""
UNREAD: dict[str, tuple[str, ...]] = {"clca": ("norm.", "head.")}
"""Parameters of the model that a method with a classifier of its own does not read."""
COMPILES_NOT = ("atc", "atc-every-layer", "ats")
"""Reducers that wait for the CPU within the pass: scikit-learn clusters there, or the images say how many rows stay."""
BATCH_DEPENDENT = ("ats",)
"""Reducers by whose release an image's result depends on the images beside it."""
INSIDE_ATTENTION = ("tomesd",)
"""Reducers that merge behind the norm, for attention alone."""
WITHOUT_CLASS_TOKEN = ("average", "siglip", "clip-timm")
FILLED_UP = ("ats", "ats-haurum", "vwt-inter")
"""Reducers that fill images up to one number of tokens, with rows that no attention may see."""
ATTENTION_POOLED = ("eva02-enormous", "siglip", "clip-timm")
PLACED = ("eva02", "eva02-tiny", "eva02-enormous", "rope-mixed", "dinov3", "dinov3-swiglu", "beit", "beit-shared")

METHODS: dict[str, ReducerMethod] = {
    name: method for name in registry.locations() if isinstance(method := registry.get(name), ReducerMethod)
}


def build(name: str, model: Any, attention: str = "fused", **changes: Any) -> Any:
    """The named reducer of `model`, with small settings."""
    return reduced(METHODS[name], model, attention, **changes)


def served_by(names: Iterable[str] = METHODS) -> list[tuple[str, str]]:
    """Methods and the models of `vits` that they serve, as docs/backbones.md says."""
    return [(name, model) for name in names for model in vits.SERVED if model not in refused_by(name)]


def refused_by(name: str) -> tuple[str, ...]:
    """The models of `vits` that a method refuses, for want of a class token, of places, or of a pooling."""
    found: tuple[str, ...] = ()
    if getattr(METHODS[name].reduction, "needs_class_token", False):
        found += WITHOUT_CLASS_TOKEN
    if getattr(METHODS[name].reduction, "makes_tokens", False):
        found += PLACED
    if name in FILLED_UP:
        found += ATTENTION_POOLED
    return tuple(dict.fromkeys(found))
