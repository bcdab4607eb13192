"""Which size of a tokenizer, and which weights, where somebody names a method and little else."""

from dataclasses import dataclass
from pathlib import Path

import torch

from tokenmark import build, registry, shelf
from tokenmark.contracts import Tokenizer, TokenizerMethod, Variant
from tokenmark.errors import WeightsError
from tokenmark.files import digest_of
from tokenmark.shelf import Shelf
from tokenmark.weights import Weights


@dataclass(frozen=True, slots=True)
class Chosen:
    """A tokenizer that is ready, and what it is."""

    tokenizer: Tokenizer
    variant: str
    sha256: str | None
    """Of its weights; None where it has none."""


def tokenizer(method: str, variant: str | None, weights: Path | None, device: torch.device) -> Chosen:
    """A tokenizer by its method, in evaluation mode.

    Args:
        method: its id.
        variant: its size; None takes the first whose weights are here.
        weights: a checkpoint as its release has it, a hub's folder that holds it, or the shelf.
        device: where it computes.

    Raises:
        UnknownNameError: there is no such method or variant.
        WeightsError: its weights are missing, altered, or another variant's.
    """
    found = registry.get_as(TokenizerMethod, method)
    file = _file(found, variant, weights)
    place = Shelf(weights) if weights is not None and file is None else Shelf()
    name = variant or _first(found, place, file)
    size = registry.variant_of(found, name)
    if file is not None:
        held = _named(size, file)
        return Chosen(build.tokenizer_from(method, name, held, device, place), name, held.sha256)
    own = build.weights_of(found, name, place)
    return Chosen(build.tokenizer(method, name, device, place), name, own.sha256 if own else None)


def _file(method: TokenizerMethod, variant: str | None, weights: Path | None) -> Path | None:
    """The checkpoint that is meant, where a file or a hub's folder is named."""
    if weights is None or weights.is_file():
        return weights
    if not weights.exists():
        raise WeightsError(f"{weights} does not exist: give a checkpoint, or the folder where weights of others lie")
    sizes = [registry.variant_of(method, variant)] if variant else list(method.variants.values())
    releases = (size.release for size in sizes if size.release is not None)
    return next((weights / each.file for each in releases if (weights / each.file).is_file()), None)


def _named(size: Variant, file: Path) -> Weights:
    if size.release is not None:
        return shelf.given(size.release, file)
    return Weights(file.name, file, digest_of(file))


def _first(method: TokenizerMethod, place: Shelf, file: Path | None) -> str:
    """The first size whose weights are here, or that needs none."""
    for name, size in method.variants.items():
        if file is not None and size.weights is None:
            return name
        released = size.release is not None and place.path(size.release) is not None
        if file is None and (size.weights is not None or released):
            return name
    for name, size in method.variants.items():
        by_hand = size.release is None and place.by_hand(f"{method.id}/{name}") is not None
        if file is None and (by_hand or (size.release is None and not build.has_state(method, size))):
            return name
    raise WeightsError(
        f"{method.id} has no weights here: get some (`tokenmark weights {method.id}` says where from), or name a"
        f" checkpoint with --weights and its --variant ({', '.join(method.variants)})"
    )
