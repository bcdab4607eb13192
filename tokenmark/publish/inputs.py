"""Which bytes are meant by a name in a specification: of data that can be made here, and of published weights."""

import functools
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tokenmark import backbones, catalogue, pins, zeroshot
from tokenmark.data import catalog, prepared
from tokenmark.errors import TokenmarkError
from tokenmark.plan import PROMPTS
from tokenmark.spec import RunSpec
from tokenmark.weights import Published

SCIKIT = re.compile(r"scikit-learn \S+")


def data(name: str, libraries: Mapping[str, str]) -> str | None:
    """The hash of data that are embedded, as these libraries make them; None for others."""
    if name == PROMPTS:
        return zeroshot.prompts_sha256()
    data_set, _, split = name.partition("/")
    if data_set not in catalog.EMBEDDED:
        return None
    manifest = _embedded(data_set).get(split)
    if manifest is None:
        return None
    # the manifest names the version of the library that brought the scans, and no other thing of it
    source = SCIKIT.sub(f"scikit-learn {libraries.get('scikit-learn')}", manifest.source)
    return manifest.model_copy(update={"source": source}).sha256


@functools.cache
def _embedded(name: str) -> dict[str, prepared.Manifest]:
    with tempfile.TemporaryDirectory() as folder:
        catalog.EMBEDDED[name](Path(folder))
        return {path.parent.name: prepared.load(path.parent).manifest for path in Path(folder).glob("*/manifest.json")}


def nameable(name: str, spec: RunSpec) -> bool:
    """Whether there are weights of that name: published ones, or a checkpoint that no hub has of the run's method."""
    return name == f"{spec.method}/{spec.variant}" or _published(name, spec.model) is not None


def stated(name: str, root: Path, spec: RunSpec) -> str | None:
    """The hash of published weights as the repository pins it, or as was published; None where nobody says."""
    item = _published(name, spec.model)
    if item is None:
        return None
    pin = pins.read(root).get(item.key)
    return pin.sha256 if pin is not None else item.sha256


def _published(key: str, model: str | None) -> Published | None:
    found = _by_key().get(key)
    if found is not None or model is None:
        return found
    try:
        release = backbones.get(model).release
    except TokenmarkError:
        return None
    return release if release is not None and release.key == key else None


@functools.cache
def _by_key() -> dict[str, Published]:
    return {entry.item.key: entry.item for entry in catalogue.entries() if entry.item is not None}
