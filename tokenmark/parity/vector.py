"""Read a parity vector: one JSON file that says what a release gives, or which keys its checkpoint has."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

from tokenmark.errors import TokenmarkError


class ParityError(TokenmarkError):
    """A vector that cannot be read, or a method that cannot be put beside its release."""


class InputRule(pydantic.BaseModel, extra="forbid"):
    """How an input is made: by rule from its name or tag, or given outright."""

    shape: list[int]
    rule: str = "values"
    tag: str | None = None
    values: list[Any] | None = None


class Output(pydantic.BaseModel, extra="forbid"):
    """What is kept of an output."""

    shape: list[int]
    kind: str
    values: list[float] | list[int]
    sum: float | int
    l2: float = 0.0
    places: str | None = None


class Vector(pydantic.BaseModel, extra="forbid"):
    """A release's configuration, keys and shapes; with inputs and outputs, or without (a checkpoint's manifest)."""

    system: str
    """The method's id."""
    variant: str
    source: dict[str, str]
    config: dict[str, Any]
    parameters: dict[str, list[int]]
    """The release's state dict: key to shape."""
    kept: dict[str, Any] = {}
    """Keys that the rule does not fill; with the values that they hold where numbers are given."""
    scale: dict[str, float] = {}
    """Factors by which filled tensors are multiplied."""
    integer_buffers: Any = None
    """Integer buffers of the state dict, which are never filled."""
    companion: Any = None
    notes: Any = ""
    inputs: dict[str, InputRule] = {}
    outputs: dict[str, Output] = {}

    @property
    def title(self) -> str:
        """`system/variant`."""
        return f"{self.system}/{self.variant}"

    def rules(self) -> Mapping[str, Mapping[str, Any]]:
        """The inputs' rules as plain data."""
        return {name: rule.model_dump(exclude_none=True) for name, rule in self.inputs.items()}


def load(path: Path) -> Vector:
    """The vector in `path`.

    Raises:
        ParityError: there is none, or it is no vector.
    """
    try:
        return Vector.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ParityError(f"{path} does not exist: give the path of a parity vector (*.json)") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ParityError(f"{path} cannot be read as JSON: {str(error).partition(chr(10))[0]}") from error
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ParityError(f"{path} is no parity vector: {place}: {first['msg']}") from error
