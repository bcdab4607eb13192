"""Every method gives what its release gives: all vectors and all checkpoints' manifests, through `tokenmark parity`."""

import contextlib
import functools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.vector_case import VECTORS
from tokenmark import registry
from tokenmark.contracts import GeneratorMethod, TokenizerMethod
from tokenmark.parity.compare import Report, compare, key_problems
from tokenmark.parity.vector import load

FILES = sorted(path for path in VECTORS.glob("*.json") if path.name.partition("__")[0] in registry.parities())
KINDS = {name: type(registry.get(name)) for name in registry.locations()}
WITH_VARIANTS = {TokenizerMethod, GeneratorMethod}
MANIFESTS = [
    path
    for path in FILES
    if path.name.endswith(".manifest.json")
    and KINDS.get(path.name.partition("__")[0]) in {TokenizerMethod, GeneratorMethod}
]
OTHER_NETWORKS = {"tokenbridge__tokenbridge_large", "tokenbridge__tokenbridge_huge", "larp__LARP-L-long-AR"}
"""Manifests of a generator that writes the method's tokens: no variant of the tokenizer holds it."""


def name(path: Path) -> str:
    return path.name.removesuffix(".json")


def compared(path: Path) -> Report:
    """In a process of its own: how MKL rounds is set there, which is too late where torch has computed."""
    return compare(load(path))


@pytest.fixture(scope="module")
def apart():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("path", FILES, ids=name)
def test_agrees_with_its_release(request, monkeypatch, path):
    """As MKL rounds on this processor if that will do, for it is faster; else as `tokenmark parity` does it."""
    vector = load(path)
    with monkeypatch.context() as patch, contextlib.nullcontext() if vector.outputs else unfilled():
        patch.setenv("MKL_CBWR", "AUTO")
        report = compare(vector)
    if report.mismatches:
        report = request.getfixturevalue("apart").submit(compared, path).result()
    assert report.mismatches == ()
    assert report.keys + report.outputs > 0


FILLS = [name for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")]


@contextlib.contextmanager
def unfilled():
    """For modules without memory: most of the time that their making takes goes into filling what cannot be filled."""
    with pytest.MonkeyPatch.context() as patch:
        for fill in FILLS:
            patch.setattr(nn.init, fill, lambda tensor, *_, **__: tensor)
        yield


@functools.cache
def built(system: str, variant: str) -> nn.Module:
    method = registry.get_as((TokenizerMethod, GeneratorMethod), system)
    tokenizer = (None,) if isinstance(method, GeneratorMethod) else ()
    with unfilled(), torch.device("meta"):
        return method.build(*tokenizer, **method.variants[variant].config)


@pytest.mark.parametrize("path", MANIFESTS, ids=name)
def test_a_registered_variant_holds_the_checkpoint(path):
    vector = load(path)
    method = registry.get(vector.system)
    if name(path).removesuffix(".manifest").startswith(tuple(OTHER_NETWORKS)):
        pytest.skip("a generator's checkpoint, which no variant of the tokenizer holds")
    variants = [variant for variant, size in method.variants.items() if size.weights is None]
    variants.sort(key=lambda variant: variant not in path.name)  # for speed: what is called so is looked at first
    assert any(not key_problems(built(vector.system, variant), vector, method.layout) for variant in variants)


def test_every_vector_is_run():
    have = {path.name.partition("__")[0] for path in VECTORS.glob("*.json")}
    generators = {name for name, kind in KINDS.items() if kind is GeneratorMethod}
    assert have - generators <= set(registry.parities())
