"""Weights are data: safetensors, loaded strictly by key, checked against the SHA-256 on their card.

Bundled weights lie in a package's `weights/` folder as `<name>.safetensors` beside a card `<name>.toml`, which
holds the hash, the recipe that trained them, its seed and data, and what they reach.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from tokenmark import registry
from tokenmark.errors import WeightsError
from tokenmark.files import sha256_of


@dataclass(frozen=True, slots=True)
class Weights:
    """A weights file whose bytes were found to be those that its card promises."""

    name: str
    path: Path
    sha256: str
    card: dict[str, Any]


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
    digest = sha256_of(path)
    if digest != card.get("sha256"):
        raise WeightsError(
            f"{path} was altered or is truncated: its SHA-256 is {digest[:12]}..., its card says"
            f" {str(card.get('sha256'))[:12]}...; take it from the repository again"
        )
    return Weights(name, path, digest, card)


def load_strict(module: nn.Module, path: Path) -> None:
    """Fill a module from a safetensors file; keys and shapes must be exactly the module's.

    Raises:
        WeightsError: the file is not safetensors, or keys are missing, unexpected or of another shape.
    """
    try:
        tensors = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path} is not a whole safetensors file: {error}") from error
    fill_strict(module, tensors, path)


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
