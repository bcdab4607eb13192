"""Pins: which bytes of a published file are meant, as one person wrote them down in `pins.toml`.

A table per file, named by its key (`"owner/name/model.safetensors"`), with its `sha256` and, for the hub, the
`revision`: the commit at which it has these bytes.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import pydantic
from filelock import FileLock

from tokenmark.errors import WeightsError
from tokenmark.files import write_atomic, writing
from tokenmark.spec import Sha256

FILE = "pins.toml"
Revision = Annotated[str, pydantic.StringConstraints(pattern=r"^[0-9a-f]{40}$")]


class Pin(pydantic.BaseModel):
    """One file's bytes, and the commit at which the hub has them."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    sha256: Sha256
    revision: Revision | None = None
    """None where the file is no hub's, or was never downloaded from there."""


_PINS = pydantic.TypeAdapter(dict[str, Pin])


def read(folder: Path) -> dict[str, Pin]:
    """The pins of a folder by key (see `Release.key`, `WeightsFile.key`); none where there is no file.

    Raises:
        WeightsError: the file is no TOML, or has an unknown field or a value that is no hash.
    """
    path = folder / FILE
    try:
        return _PINS.validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ": ".join(str(part) for part in first["loc"])
        raise WeightsError(f"{path}: {place}: {first['msg']} (got {first['input']!r})") from error
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error


def add(folder: Path, new: Mapping[str, Pin]) -> None:
    """Write pins beside those that are there; of one key the new one stays.

    Raises:
        WeightsError: the file that is there cannot be read; it stays as it is.
        StorageError: it cannot be written; what was there stays.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{FILE}.lock"):
            pins = {**read(folder), **new}
            write_atomic(folder / FILE, "\n".join(_table(key, pins[key]) for key in sorted(pins)).encode())


def _table(key: str, pin: Pin) -> str:
    fields = pin.model_dump(exclude_none=True)
    lines = (f"{name} = {json.dumps(fields[name])}" for name in sorted(fields))
    return "\n".join((f"[{json.dumps(key)}]", *lines, ""))
