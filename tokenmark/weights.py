"""Weights are data: tensors read without running code, loaded strictly by key, from bytes whose SHA-256 is known.

Bundled weights lie in a package's `weights/` folder as `<name>.safetensors` beside a card `<name>.toml`, which
holds the hash, the recipe that trained them, its seed and data, and what they reach. What others published is found
by `tokenmark.shelf`.
"""

import argparse
import pickle
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from tokenmark import registry
from tokenmark.contracts import Release
from tokenmark.errors import WeightsError
from tokenmark.files import digest_of


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """One file that was published at an address of its own, with a hash that its publisher or its users state."""

    name: str
    source: str
    """Where it is published, in words that fit behind 'from'."""
    sha256: str
    url: str

    @property
    def key(self) -> str:
        """The name under which pins and records hold it."""
        return self.name


Published: TypeAlias = Release | WeightsFile
"""Weights of others."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A weights file on this machine, and the SHA-256 of its bytes."""

    name: str
    path: Path
    sha256: str
    card: dict[str, Any] = field(default_factory=dict)
    """What the repository says of weights of its own."""
    published: bool = True
    """False where a published hash is known and these bytes have another."""

    @property
    def warnings(self) -> list[str]:
        """What a record of these weights must say."""
        if self.published:
            return []
        return [f"not comparable: {self.name} is not the published file (its SHA-256 is {self.sha256})"]


def bundled(package: str, name: str) -> Weights:
    """Weights that lie in the package, checked against their card.

    Raises:
        WeightsError: the file or card is missing, or the bytes are not the card's.
    """
    folder = registry.package_folder(package) / "weights"
    path, card_path = folder / f"{name}.safetensors", folder / f"{name}.toml"
    for needed in (path, card_path):
        if not needed.is_file():
            raise WeightsError(f"{needed} is missing: run `nox -s train-mini`, or take it from the repository")
    try:
        card = tomllib.loads(card_path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{card_path} cannot be read: {error}; take it from the repository again") from error
    digest = digest_of(path)
    if digest != card.get("sha256"):
        raise WeightsError(
            f"{path} was altered or is truncated: its SHA-256 is {digest[:12]}..., its card says"
            f" {str(card.get('sha256'))[:12]}...; take it from the repository again"
        )
    return Weights(name, path, digest, card)


def content(path: Path) -> Any:
    """All that a file of weights holds, read without running code: of safetensors the tensors, else what torch saved.

    Raises:
        WeightsError: it cannot be read, or holds anything but tensors and plain data.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        # A Namespace holds the training's arguments in some releases: names and values, and no behaviour.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(f"{path} cannot be read as tensors alone: {reason}") from error


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a file by torch.save that holds tensors and nothing else.

    Raises:
        WeightsError: it cannot be read, or holds anything but named tensors.
    """
    tensors = content(path)
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise WeightsError(f"{path} does not hold named tensors: take a file with a state dictionary")
    return tensors


def load_strict(module: nn.Module, path: Path) -> None:
    """Fill a module from a file of tensors (see `read`); keys and shapes must be exactly the module's.

    Raises:
        WeightsError: the file is no whole file of tensors, or keys are missing, unexpected or of another shape.
    """
    fill_strict(module, read(path), path)


def fill_strict(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Fill a module with what was read from `path`; keys and shapes must be exactly the module's.

    Raises:
        WeightsError: keys are missing, unexpected or of another shape; nothing is loaded then.
    """
    expected = module.state_dict()
    problems = [
        *_listed("missing", expected.keys() - tensors.keys()),
        *_listed("unexpected", tensors.keys() - expected.keys()),
        *_listed("mis-shaped", _mis_shaped(expected, tensors)),
    ]
    if problems:
        raise WeightsError(f"{path} does not fit this model: {'; '.join(problems)}")
    module.load_state_dict(tensors)


def _mis_shaped(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> set[str]:
    return {
        f"{key} {tuple(tensors[key].shape)} for {tuple(expected[key].shape)}"
        for key in expected.keys() & tensors.keys()
        if tensors[key].shape != expected[key].shape
    }


def _listed(what: str, keys: set[str], shown: int = 5) -> list[str]:
    if not keys:
        return []
    names = sorted(keys)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return [f"{len(names)} {what} ({', '.join(names[:shown])}{more})"]
