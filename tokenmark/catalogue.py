"""Published weights by the names under which people ask for them."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import timm

from tokenmark import backbones, extractors, registry, suites
from tokenmark.contracts import GeneratorMethod, Release, TokenizerMethod
from tokenmark.errors import UnknownNameError, WeightsError
from tokenmark.measures import lpips
from tokenmark.shelf import Shelf
from tokenmark.suites import ClassificationJob
from tokenmark.weights import Published


@dataclass(frozen=True, slots=True)
class Entry:
    """Weights that somebody may ask for."""

    name: str
    """`method/variant`, a classifier's or an extractor's name, or `lpips-alex`."""
    kind: str
    item: Published | None
    """None where they are in the repository."""

    @property
    def source(self) -> str:
        """Where they come from, in words."""
        match self.item:
            case None:
                return "this repository"
            case Release(file="model.safetensors"):
                return f"hub: {self.item.repo}"
            case Release():
                return f"hub: {self.item.key}"
            case _:
                return self.item.source

    def state(self, shelf: Shelf) -> str:
        """`bundled`, `here`, `missing` (but pinned) or `not pinned`."""
        if self.item is None:
            return "bundled"
        if shelf.path(self.item) is not None:
            return "here"
        return "missing" if shelf.pinned(self.item) else "not pinned"


def entries(suites_folder: Path | None = None) -> list[Entry]:
    """All that have a name of their own; of timm's many classifiers, those that the suites in a folder measure."""
    found = [*_methods(), *_networks()]
    return found + [_classifier(name) for name in sorted(_measured(suites_folder))] if suites_folder else found


def get(name: str) -> Published:
    """What was published under a name.

    Raises:
        UnknownNameError: there is none of that name; the nearest are given.
        MethodError: a classifier of timm's without a tag.
        WeightsError: they are in the repository, or drawn: there is nothing to get.
    """
    known = {entry.name: entry for entry in entries()}
    if name not in known:
        try:
            known[name] = _classifier(name)
        except UnknownNameError as error:
            near = difflib.get_close_matches(name, timm.list_pretrained(), cutoff=0.8)
            raise UnknownNameError("weights", name, [*known, *near]) from error
    item = known[name].item
    if item is None:
        raise WeightsError(f"there is nothing to get for {name}: its weights are in the repository, or drawn")
    return item


def _methods() -> Iterator[Entry]:
    for name in registry.locations():
        method = registry.get(name)
        if isinstance(method, TokenizerMethod | GeneratorMethod):
            for size, variant in method.variants.items():
                if variant.weights is not None or variant.release is not None:
                    item = variant.release if variant.weights is None else None
                    yield Entry(f"{name}/{size}", registry.kind_of(method), item)


def _networks() -> Iterator[Entry]:
    for name in extractors.PLACES:
        yield Entry(name, "features", extractors.recipe(name).file)
    for net in get_args(lpips.Net):
        yield Entry(f"lpips-{net}", "LPIPS", lpips.FILES[net])


def _classifier(name: str) -> Entry:
    return Entry(name, "classifier", backbones.get(name).release)


def _measured(folder: Path) -> set[str]:
    jobs = (job for path in sorted(folder.glob("*.toml")) for job in suites.load(path).jobs)
    models = {job.model for job in jobs if isinstance(job, ClassificationJob)}
    return {name for name in models if backbones.get(name).release is not None}
