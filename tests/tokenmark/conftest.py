"""Fixtures of the engine's tests."""

import shutil
import sys

import pytest
import torch

from tests.tokenmark import clone
from tokenmark import registry
from tokenmark.data import catalog
from tokenmark.tasks.base import Context


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory):
    """A data folder of this session's own, with the embedded digits prepared in it. Only to be read."""
    folder = tmp_path_factory.mktemp("data")
    catalog.load("digits-32", "val", folder)
    return folder


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory):
    """Inception's state dictionary with drawn numbers, in the place of the published file, which cannot be had here."""
    from recipes import drawn  # torchvision comes with it, which few tests need

    return drawn.inception(tmp_path_factory.mktemp("weights") / "inception.pth")


@pytest.fixture
def context(digits_folder):
    """The processor, and the digits."""
    return Context(torch.device("cpu"), digits_folder)


@pytest.fixture(scope="session")
def measured(tmp_path_factory, digits_folder):
    """A clone with two records, measured once. Only to be read."""
    root = tmp_path_factory.mktemp("clone")
    head = clone.begin(root)
    clone.measure(root, head, digits_folder)
    clone.commit(root, "Records")
    return root


@pytest.fixture
def root(measured, tmp_path):
    """A copy of the clone with measured records, to be harmed."""
    return shutil.copytree(measured, tmp_path / "clone")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write modules into a fresh folder on the path, and forget them afterwards."""
    before = set(sys.modules)
    root = tmp_path / "path"
    root.mkdir()
    monkeypatch.syspath_prepend(root)

    def write(files: dict[str, str]):
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        forget()
        return root

    yield write
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(root)):
            del sys.modules[name]
    monkeypatch.undo()
    forget()


def forget() -> None:
    """Empty the registry's caches, which hold what was on the path before."""
    for function in (registry.locations, registry.get, registry.implementation):
        function.cache_clear()
