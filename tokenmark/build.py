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
from tokenmark.errors import SuiteError, UnknownNameError, WeightsError, chosen
from tokenmark.shelf import Shelf
from tokenmark.weights import Weights

T = TypeVar("T")


def tokenizer(method: str, variant: str, device: torch.device, shelf: Shelf | None = None) -> Tokenizer:
    """A tokenizer with its weights, in evaluation mode; published ones from the shelf, the default if none is given."""
    found = registry.get_as(TokenizerMethod, method)
    chosen = registry.variant_of(found, variant)
    return _ready(found.build(**chosen.config), found, variant, device, shelf)


def generator(
    method: str, variant: str, preset: str, device: torch.device, shelf: Shelf | None = None
) -> tuple[Generator, Any]:
    """A generator with its tokenizer and weights (see `tokenizer`), and the settings of one of its presets."""
    found = registry.get_as(GeneratorMethod, method)
    chosen = registry.variant_of(found, variant)
    settings = preset_of(found, preset)
    decoder = tokenizer(*tokenizer_of(found, chosen), device, shelf)
    return _ready(found.build(decoder, **chosen.config), found, variant, device, shelf), settings


def reduced(method: str, model: nn.Module, settings: Mapping[str, JsonValue]) -> ReducedModel:
    """A classifier whose tokens a method reduces."""
    found = registry.get_as(ReducerMethod, method)
    return found.build(model, settings_of(found, settings))


def weights_of(method: TokenizerMethod | GeneratorMethod, variant: str, shelf: Shelf | None = None) -> Weights | None:
    """The weights of a method's variant: bundled, or published ones from the shelf; None if it names none.

    Raises:
        MissingWeightsError: published ones that are not here.
        WeightsError: they are altered, or bundled ones are not there.
    """
    chosen = registry.variant_of(method, variant)
    if chosen.weights is not None:
        return weights.bundled(registry.locations()[method.id].package, chosen.weights)
    if chosen.release is not None:
        return (shelf or Shelf()).find(chosen.release, f"{method.id}/{variant}")
    return None


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
    return chosen(f"preset of {method.id}", name, method.presets)


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


def _ready(
    built: T, method: TokenizerMethod | GeneratorMethod, variant: str, device: torch.device, shelf: Shelf | None
) -> T:
    """Load the weights and put the module on the device; a codec without a state is ready as it is.

    Raises:
        WeightsError: the variant's weights are not here, altered, or do not fit.
    """
    if not isinstance(built, nn.Module):
        return built
    found = weights_of(method, variant, shelf)
    if found is not None:
        weights.load_strict(built, found.path)
    elif built.state_dict():
        raise WeightsError(f"{method.id}/{variant} has no weights: its file names neither bundled nor published ones")
    module = built.to(device).eval().requires_grad_(requires_grad=False)
    return cast("T", module)
