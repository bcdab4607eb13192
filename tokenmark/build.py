"""Build methods from their names: architecture from the method, weights from its package, ready to run."""

import math
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import pydantic
import torch
from pydantic import JsonValue
from torch import nn

from tokenmark import registry, weights
from tokenmark.contracts import (
    Generator,
    GeneratorMethod,
    Method,
    ReducedModel,
    ReducerMethod,
    Tokenizer,
    TokenizerMethod,
    Variant,
)
from tokenmark.errors import SuiteError, UnknownNameError, WeightsError

T = TypeVar("T")


def tokenizer(method: str, variant: str, device: torch.device) -> Tokenizer:
    """A tokenizer with its weights, in evaluation mode."""
    found = registry.get_as(TokenizerMethod, method)
    chosen = registry.variant_of(found, variant)
    return _ready(found.build(**chosen.config), method, variant, chosen, device)


def generator(method: str, variant: str, preset: str, device: torch.device) -> tuple[Generator, Any]:
    """A generator with its tokenizer and weights, and the settings of one of its presets."""
    found = registry.get_as(GeneratorMethod, method)
    chosen = registry.variant_of(found, variant)
    settings = preset_of(found, preset)
    decoder = tokenizer(*tokenizer_of(found, chosen), device)
    return _ready(found.build(decoder, **chosen.config), method, variant, chosen, device), settings


def reduced(method: str, model: nn.Module, settings: Mapping[str, JsonValue]) -> ReducedModel:
    """A classifier whose tokens a method reduces."""
    found = registry.get_as(ReducerMethod, method)
    return found.build(model, settings_of(found, settings))


def tokenizer_of(method: GeneratorMethod, variant: Variant) -> tuple[str, str]:
    """Method and variant of the tokenizer that a generator writes for."""
    if variant.tokenizer is None:
        raise SuiteError(f"a variant of {method.id} names no tokenizer: it cannot make images")
    name, _, size = variant.tokenizer.partition("/")
    return name, size


def preset_of(method: GeneratorMethod, name: str) -> Any:
    """The sampler settings called `name`.

    Raises:
        UnknownNameError: the generator has no such preset.
    """
    if name not in method.presets:
        raise UnknownNameError(f"preset of {method.id}", name, method.presets)
    return method.presets[name]


def settings_of(method: Method, given: Mapping[str, JsonValue]) -> Any:
    """The method's settings with the given ones in place.

    Raises:
        UnknownNameError: a setting that the method does not have.
        SuiteError: a value of a wrong type, or a number that is none.
    """
    known = method.settings.__dataclass_fields__  # type: ignore[attr-defined]
    for name in given:
        if name not in known:
            raise UnknownNameError(f"setting of {method.id}", name, known)
        if not _finite(given[name]):
            raise SuiteError(f"setting {name} of {method.id}: a number must be finite (got {given[name]!r})")
    try:
        return pydantic.TypeAdapter(method.settings).validate_python(dict(given))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SuiteError(f"setting {place} of {method.id}: {first['msg']} (got {first['input']!r})") from error


def _finite(value: JsonValue) -> bool:
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _ready(built: T, method: str, name: str, variant: Variant, device: torch.device) -> T:
    """Load the bundled weights and put the module on the device; a codec without a state is ready as it is.

    Raises:
        WeightsError: the variant's weights are not in the repository, altered, or do not fit.
    """
    if not isinstance(built, nn.Module):
        return built
    if variant.weights is not None:
        weights.load_strict(built, weights.bundled(registry.locations()[method].package, variant.weights).path)
    elif built.state_dict():
        raise WeightsError(
            f"{method}/{name} has no weights here: variants of released sizes take the release's checkpoint,"
            " which this version cannot load yet; choose a 'mini' variant"
        )
    module = built.to(device).eval().requires_grad_(requires_grad=False)
    return cast("T", module)
