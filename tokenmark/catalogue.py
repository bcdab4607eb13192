"""Published weights by the names under which people ask for them.

One name is looked up without importing what other names need: timm, open_clip and torchmetrics take seconds each.
"""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenmark import extractors, registry
from tokenmark.contracts import GeneratorMethod, Release, TokenizerMethod
from tokenmark.errors import UnknownNameError, WeightsError
from tokenmark.shelf import Shelf
from tokenmark.weights import Published

LPIPS, TEXT, PART = "lpips-", "clip-text-", "part-"


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
    found = [entry for name in registry.locations() for entry in _of_method(name)]
    found += [_extractor(name) for name in extractors.PLACES]
    found += [*_parts(), *_texts(), *_backbones_of_lpips()]
    return found + [_classifier(name) for name in sorted(_measured(suites_folder))] if suites_folder else found


def get(name: str) -> Published:
    """What was published under a name.

    Raises:
        UnknownNameError: there is none of that name; the nearest are given.
        MethodError: a classifier of timm's without a tag.
        WeightsError: they are in the repository, or drawn: there is nothing to get.
    """
    found = next((entry for entry in _candidates(name) if entry.name == name), None)
    entry = found or _sought(name)
    if entry.item is None:
        raise WeightsError(f"there is nothing to get for {name}: its weights are in the repository, or drawn")
    return entry.item


def expanded(names: Iterable[str], suites_folder: Path) -> list[str]:
    """Each name once; in a suite's place the names of all published weights that its jobs read."""
    found: dict[str, None] = {}
    for name in names:
        path = suites_folder / f"{name}.toml"
        found |= dict.fromkeys(_read_by(path) if path.is_file() else [name])
    return list(found)


def _read_by(path: Path) -> list[str]:
    """Names of published weights that a suite's jobs read, in their order, the networks that judge first."""
    from tokenmark import jobs, networks, protocols, suites  # noqa: PLC0415  as above
    from tokenmark.tasks.base import SEEN  # noqa: PLC0415  as above

    suite = suites.load(path)
    protocol = protocols.get(suite.protocol)
    names: dict[str, None] = {}
    for job in suite.jobs:
        measures = set(jobs.measures_of(job))
        if measures & SEEN and protocol.port in networks.EXTRACTORS:
            names[networks.EXTRACTORS[protocol.port]] = None
        if "lpips" in measures:
            names[f"{LPIPS}alex"] = None
        match job:
            case suites.ClassificationJob():
                names |= dict.fromkeys([job.model] if job.model and _classifier(job.model).item else [])
            case suites.TokenizationJob() | suites.SamplingJob() | suites.StructureJob():
                pass  # its weights are drawn, or only counted
            case _:
                names |= dict.fromkeys(_of_variant(job.method, job.variant))
    return list(names)


def _of_variant(method: str, size: str) -> Iterator[str]:
    """The name of a variant's weights, and of its tokenizer's, where they were published."""
    found = registry.get(method)
    if isinstance(found, TokenizerMethod | GeneratorMethod):
        variant = registry.variant_of(found, size)
        if variant.release is not None and variant.weights is None:
            yield f"{method}/{size}"
        yield from (part.name for part in variant.parts)
        if found.text:
            yield found.text
        if variant.tokenizer is not None:
            yield from _of_variant(*variant.tokenizer.split("/", 1))


def _candidates(name: str) -> list[Entry]:
    """Entries of the kind that a name says it is."""
    method = name.partition("/")[0]
    if method in registry.locations():
        return list(_of_method(method))
    if name in extractors.PLACES:
        return [_extractor(name)]
    if name.startswith(LPIPS):
        return _backbones_of_lpips()
    return _texts() if name.startswith(TEXT) else _parts() if name.startswith(PART) else []


def _sought(name: str) -> Entry:
    """A classifier, or the error that names what is near."""
    import timm  # noqa: PLC0415  as above

    try:
        return _classifier(name)
    except UnknownNameError as error:
        near = difflib.get_close_matches(name, timm.list_pretrained(), cutoff=0.8)
        raise UnknownNameError("weights", name, [*(entry.name for entry in entries()), *near]) from error


def _of_method(name: str) -> Iterator[Entry]:
    method = registry.get(name)
    if isinstance(method, TokenizerMethod | GeneratorMethod):
        for size, variant in method.variants.items():
            if variant.weights is not None or variant.release is not None:
                item = variant.release if variant.weights is None else None
                yield Entry(f"{name}/{size}", registry.kind_of(method), item)


def _parts() -> list[Entry]:
    """Networks inside tokenizers whose weights their releases leave out, each once."""
    found: dict[str, Entry] = {}
    for name in registry.locations():
        method = registry.get(name)
        if isinstance(method, TokenizerMethod):
            for part in (part for variant in method.variants.values() for part in variant.parts):
                found[part.name] = Entry(part.name, "part", part.release)
    return list(found.values())


def _extractor(name: str) -> Entry:
    return Entry(name, "features", extractors.recipe(name).file)


def _texts() -> list[Entry]:
    from tokenmark import texts  # noqa: PLC0415  as above

    return [Entry(name, "text", tower.release) for name, tower in texts.TOWERS.items()]


def _backbones_of_lpips() -> list[Entry]:
    from tokenmark.measures import lpips  # noqa: PLC0415  as above

    return [Entry(f"{LPIPS}{net}", "LPIPS", file) for net, file in lpips.FILES.items()]


def _classifier(name: str) -> Entry:
    from tokenmark import backbones  # noqa: PLC0415  as above

    return Entry(name, "classifier", backbones.get(name).release)


def _measured(folder: Path) -> set[str]:
    from tokenmark import backbones, suites  # noqa: PLC0415  as above

    jobs = (job for path in sorted(folder.glob("*.toml")) for job in suites.load(path).jobs)
    models = {job.model for job in jobs if isinstance(job, suites.ClassificationJob) and job.model}
    return {name for name in models if backbones.get(name).release is not None}
