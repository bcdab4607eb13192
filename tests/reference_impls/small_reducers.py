"""Settings under which every reducer reduces the small models of `vits`, and which of them it cannot serve."""

from collections.abc import Iterable
from typing import Any

from tests.reference_impls import vits
from tokenmark import registry
from tokenmark.contracts import ReducerMethod

STAGES = {"keep_rate": 0.7, "blocks": (1, 3)}
"""For those with `Stages`, which are told by their setting `keep_rate`."""
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "tome": {"r": 2},
}
"""For the others."""
NOTHING: dict[str, dict[str, Any]] = {"none": {}, "tome": {"r": 0}}
"""Settings that reduce nothing, where `keep_rate = 1.0` is not it; None where a method always does something."""
WITHOUT_CLASS_TOKEN = ("average", "siglip", "clip-timm")
PLACED = ("eva02", "eva02-tiny", "eva02-enormous", "rope-mixed", "dinov3", "dinov3-swiglu", "beit", "beit-shared")

METHODS: dict[str, ReducerMethod] = {
    name: method for name in registry.locations() if isinstance(method := registry.get(name), ReducerMethod)
}


def settings_of(name: str) -> dict[str, Any]:
    """Settings under which a method reduces a small model."""
    return SETTINGS.get(name, STAGES)


def build(name: str, model: Any, attention: str = "fused", **changes: Any) -> Any:
    """The named reducer of `model`, with small settings."""
    asked = METHODS[name].settings(**settings_of(name) | changes)
    return METHODS[name].build(model, asked, attention=attention)


def served_by(names: Iterable[str] = METHODS) -> list[tuple[str, str]]:
    """Methods and the models of `vits` that they serve, as docs/backbones.md says."""
    return [(name, model) for name in names for model in vits.SERVED if model not in refused_by(name)]


def refused_by(name: str) -> tuple[str, ...]:
    """The models of `vits` that a method refuses, for want of a class token or of places."""
    found: tuple[str, ...] = ()
    if getattr(METHODS[name].reduction, "needs_class_token", False):
        found += WITHOUT_CLASS_TOKEN
    if getattr(METHODS[name].reduction, "makes_tokens", False):
        found += PLACED
    return found
