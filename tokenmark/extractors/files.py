"""Weights that are not ours to bundle: found in a folder, checked by SHA-256, and read as tensors alone."""

import os
import pickle
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from tokenmark.errors import WeightsError
from tokenmark.files import sha256_of

FOLDER_VARIABLE = "TOKENMARK_WEIGHTS"


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A published file."""

    name: str
    source: str
    """Where it is published, in words that fit behind 'get it from'."""
    sha256: str | None
    """None where no hash is known that we could stand for: then whoever names the file must name its hash."""


def folders() -> list[Path]:
    """Where weights are looked for: the folder in TOKENMARK_WEIGHTS, then where torch.hub keeps downloads."""
    named = os.environ.get(FOLDER_VARIABLE)
    return [*([Path(named).expanduser()] if named else []), Path(torch.hub.get_dir()) / "checkpoints"]


def found(file: WeightsFile, path: Path | None = None, sha256: str | None = None) -> Path:
    """The file on this machine, its bytes checked.

    Args:
        file: what is wanted.
        path: the file itself, instead of looking for it.
        sha256: the hash that it must have, instead of the published one.

    Raises:
        WeightsError: it is missing, its bytes are others, or nobody says what they should be.
    """
    places = [path] if path else [folder / file.name for folder in folders()]
    place = next((place for place in places if place.is_file()), None)
    if place is None:
        raise WeightsError(
            f"{file.name} is missing, looked for at {' and '.join(map(str, places))}: get it from {file.source}"
            f" and put it there under this name, or into a folder that {FOLDER_VARIABLE} names"
        )
    wanted = sha256 or file.sha256
    if wanted is None:
        raise WeightsError(f"give the SHA-256 that {place} must have: none is published for {file.name}")
    digest = sha256_of(place)
    if digest != wanted.lower():
        raise WeightsError(
            f"{place} is another file or truncated: its SHA-256 is {digest[:12]}..., wanted is {wanted[:12]}...;"
            f" get it from {file.source}"
        )
    return place


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a file by torch.save that holds tensors and nothing else.

    Raises:
        WeightsError: it cannot be read, or holds anything but named tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(f"{path} cannot be read as tensors alone: {reason}") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise WeightsError(f"{path} does not hold named tensors: take a file with a state dictionary")
    return tensors
