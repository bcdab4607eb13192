"""Build methods from their names: architecture from the method, weights from its package, ready to run."""

import math
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar, cast

import pydantic
import torch
from pydantic import JsonValue
from torch import nn

from tokenmark import layouts, registry, weights
from tokenmark.contracts import (
    ClassifierMethod,
    Generator,
    GeneratorMethod,
    Method,
    Preset,
    ReducedModel,
    ReducerMethod,
    Tokenizer,
    TokenizerMethod,
    Variant,
)
from tokenmark.errors import MissingWeightsError, SuiteError, UnknownNameError, WeightsError, chosen
from tokenmark.files import sha256_text
from tokenmark.shelf import SUFFIXES, Shelf
from tokenmark.spec import RunSpec
from tokenmark.weights import Weights

T = TypeVar("T")
SAMPLER = frozenset({"preset", "reducer"})
"""What a sampler's settings name in a specification; the rest is the reducer's own."""


def tokenizer(method: str, variant: str, device: torch.device, shelf: Shelf | None = None) -> Tokenizer:
    """A tokenizer with its weights, in evaluation mode; published ones from the shelf, the default if none is given."""
    found = registry.get_as(TokenizerMethod, method)
    size = registry.variant_of(found, variant)
    return _whole(found, variant, device, weights_of(found, variant, shelf), parts_of(size, shelf))


def tokenizer_from(
    method: str, variant: str, held: Weights, device: torch.device, shelf: Shelf | None = None
) -> Tokenizer:
    """A tokenizer with weights that somebody names (see `shelf.given`), in evaluation mode; parts from the shelf.

    Raises:
        WeightsError: they do not fit.
    """
    found = registry.get_as(TokenizerMethod, method)
    size = registry.variant_of(found, variant)
    return _whole(found, variant, device, held, parts_of(size, shelf))


def parts_of(size: Variant, shelf: Shelf | None = None) -> dict[str, Weights]:
    """The weights of the networks that a variant's release leaves out, by name.

    Raises:
        MissingWeightsError: they are not here.
    """
    return {part.name: (shelf or Shelf()).find(part.release, part.name) for part in size.parts}


def _whole(
    method: TokenizerMethod, variant: str, device: torch.device, held: Weights | None, parts: Mapping[str, Weights]
) -> Tokenizer:
    built = _sized(method, method.variants[variant], held, variant)
    for name, part in parts.items():
        try:
            cast("Any", built).load_part(name, weights.read(part.path))
        except RuntimeError as error:  # torch's own words on keys and shapes
            reason = " ".join(str(error).split())[:300]
            raise WeightsError(f"{part.path} does not fit {method.id}/{variant} as {name}: {reason}") from error
    return _ready(built, method, variant, device, held)


def drawn_tokenizer(method: str, variant: str, device: torch.device) -> Tokenizer:
    """A tokenizer of a variant's size whose weights are drawn: for its speed, not for its images."""
    found = registry.get_as(TokenizerMethod, method)
    with device:
        built = found.build(**registry.variant_of(found, variant).config)
    if registry.variant_of(found, variant).parts:
        cast("Any", built).draw_parts()
    return cast("Tokenizer", _placed(built, device)) if isinstance(built, nn.Module) else built


def _sized(method: TokenizerMethod, size: Variant, held: Weights | None, variant: str) -> Tokenizer:
    released = held is not None and size.weights is None
    arguments = layouts.arguments(method, size, held.path if held and released else None, f"{method.id}/{variant}")
    return method.build(**arguments)


def generator(
    method: str, variant: str, preset: str, device: torch.device, shelf: Shelf | None = None
) -> tuple[Generator, Preset]:
    """A generator with its tokenizer and weights (see `tokenizer`), and one of its presets."""
    found = registry.get_as(GeneratorMethod, method)
    size = registry.variant_of(found, variant)
    settings = preset_of(found, preset, variant)
    decoder = tokenizer(*tokenizer_of(found, size), device, shelf)
    held = weights_of(found, variant, shelf)
    return _ready(found.build(decoder, **size.config), found, variant, device, held), settings


def drawn_generator(method: str, variant: str, device: torch.device) -> Generator:
    """A generator and its tokenizer of a variant's size, weights drawn: for their speed and cost, not their images."""
    found = registry.get_as(GeneratorMethod, method)
    size = registry.variant_of(found, variant)
    decoder = drawn_tokenizer(*tokenizer_of(found, size), device)
    with device:
        built = found.build(decoder, **size.config)
    return cast("Generator", _placed(cast("nn.Module", built), device))


def in_sampler(generator: Generator, settings: Mapping[str, JsonValue]) -> Generator | None:
    """The generator with its tokens reduced as a specification's settings say; None where they name no reducer.

    It stands on the same weights; the given one stays as it is.
    """
    if "reducer" not in settings:
        return None
    found = registry.in_sampler(str(settings["reducer"]))
    own = {name: value for name, value in settings.items() if name not in SAMPLER}
    return cast("Generator", found.reduce(generator, settings_of(found, own)))


def implementation(method: str, variant: str | None, settings: Mapping[str, JsonValue]) -> str:
    """SHA-256 of the source of all that makes a run: of a generator its tokenizer's too.

    `settings` are those of a specification.
    """
    names = [method]
    found = registry.get(method)
    if isinstance(found, GeneratorMethod) and variant is not None:
        size = registry.variant_of(found, variant)
        names += [] if size.tokenizer is None else [tokenizer_of(found, size)[0]]
    if "reducer" in settings:
        names.append(str(settings["reducer"]))
    digests = [registry.implementation(name) for name in names]
    return digests[0] if len(digests) == 1 else sha256_text("\n".join(digests))


def implementation_of(spec: RunSpec) -> str:
    """The same, of today's source, for a specification."""
    return implementation(spec.method, spec.variant, spec.settings)


def reduced(
    method: str, model: nn.Module, settings: Mapping[str, JsonValue], seed: int = 0, attention: str = "fused"
) -> ReducedModel:
    """A classifier whose tokens a method reduces; `seed` draws the weights that the method itself has, if any."""
    found = registry.get_as(ReducerMethod, method)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return found.build(model, settings_of(found, settings), attention=attention)


def own_variant(method: str, variant: str) -> Variant:
    """A classifier's size, or a fine-tuned checkpoint of a reducer's.

    Raises:
        UnknownNameError: no such method or variant.
        TokenmarkError: a method of another kind.
    """
    found: Any = registry.get_as((ClassifierMethod, ReducerMethod), method)
    return registry.variant_of(found, variant)


def own_weights(method: str, variant: str, shelf: Shelf | None = None) -> Weights:
    """The checkpoint of a classifier's size, or of a reducer's fine-tuning.

    Raises:
        MissingWeightsError: it is not here.
    """
    size, name, place = own_variant(method, variant), f"{method}/{variant}", shelf or Shelf()
    if size.release is not None:
        return place.find(size.release, name)
    return place.by_hand(name) or _missing(name, size, place)


def _missing(name: str, size: Variant, place: Shelf) -> NoReturn:
    where = place.folder / name.replace("/", "--")
    raise MissingWeightsError(
        f"{name} has no weights here, and no hub has them ({size.note or 'nothing is said of them'}): if you have"
        f" its checkpoint, put it at {where} with its suffix ({', '.join(SUFFIXES)})"
    )


def classifier(method: str, variant: str, shelf: Shelf | None = None) -> nn.Module:
    """A classifier that reduces tokens by its own architecture, with its weights, in evaluation mode."""
    found = registry.get_as(ClassifierMethod, method)
    built = cast("nn.Module", found.build(**registry.variant_of(found, variant).config))
    layouts.load(built, own_weights(method, variant, shelf).path, found.layout)
    return built.eval().requires_grad_(requires_grad=False)


def fine_tuned(
    method: str, variant: str, model: nn.Module, shelf: Shelf | None = None, attention: str = "fused"
) -> ReducedModel:
    """A reduced classifier with the weights that its authors fine-tuned; `model` is its architecture, and is filled."""
    found = registry.get_as(ReducerMethod, method)
    settings = registry.variant_of(found, variant).config.get("settings", {})
    built = reduced(method, model, settings, attention=attention)
    layouts.load(cast("nn.Module", built), own_weights(method, variant, shelf).path, found.layout)
    cast("nn.Module", built).eval().requires_grad_(requires_grad=False)
    return built


def weights_of(method: TokenizerMethod | GeneratorMethod, variant: str, shelf: Shelf | None = None) -> Weights | None:
    """The weights of a method's variant: bundled, or others from the shelf; None if it has no state to load.

    Raises:
        MissingWeightsError: others that are not here.
        WeightsError: they are altered, or bundled ones are not there.
    """
    chosen = registry.variant_of(method, variant)
    if chosen.weights is not None:
        return weights.bundled(registry.locations()[method.id].package, chosen.weights)
    if chosen.release is not None:
        return (shelf or Shelf()).find(chosen.release, f"{method.id}/{variant}")
    place, name = shelf or Shelf(), f"{method.id}/{variant}"
    held = place.by_hand(name)
    if held is None and isinstance(method, TokenizerMethod) and has_state(method, chosen):
        _missing(name, chosen, place)
    return held


def has_state(method: TokenizerMethod, size: Variant) -> bool:
    """Whether a variant has weights or tables to load."""
    with torch.device("meta"):
        built = method.build(**size.config)
    return isinstance(built, nn.Module) and bool(built.state_dict())


def tokenizer_of(method: GeneratorMethod, variant: Variant) -> tuple[str, str]:
    """Method and variant of the tokenizer that a generator writes for."""
    if variant.tokenizer is None:
        raise SuiteError(f"a variant of {method.id} names no tokenizer: it cannot make images")
    name, _, size = variant.tokenizer.partition("/")
    return name, size


def preset_of(method: GeneratorMethod, name: str, variant: str) -> Preset:
    """The preset called `name`, for a variant.

    Raises:
        UnknownNameError: the generator has no such preset.
        SuiteError: it is for other variants.
    """
    found: Preset = chosen(f"preset of {method.id}", name, method.presets)
    if variant not in found.variants:
        fitting = [known for known, preset in method.presets.items() if variant in preset.variants]
        names = f"those for {variant} are {', '.join(fitting)}" if fitting else f"none is for {variant}"
        raise SuiteError(f"preset {name} of {method.id} is for {', '.join(found.variants)}: {names}")
    return found


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
    built: T, method: TokenizerMethod | GeneratorMethod, variant: str, device: torch.device, held: Weights | None
) -> T:
    """Load the weights and put the module on the device; a codec without a state is ready as it is.

    Raises:
        WeightsError: the variant has none, or they do not fit.
    """
    if not isinstance(built, nn.Module):
        return built
    bundled = method.variants[variant].weights is not None
    if held is not None and bundled:
        weights.load_strict(built, held.path)
    elif held is not None:
        layouts.load(built, held.path, method.layout)
    elif built.state_dict():
        raise WeightsError(f"{method.id}/{variant} has no weights: its file names neither bundled nor published ones")
    return cast("T", _placed(built, device))


def _placed(module: nn.Module, device: torch.device) -> nn.Module:
    """On the device, in evaluation mode; convolutions in the memory order that they are fast in, here and there."""
    return module.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(requires_grad=False)
