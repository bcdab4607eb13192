"""How a method is put beside its release."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tokenmark.contracts.releases import Layout


@dataclass(frozen=True, slots=True)
class ParityCase:
    """What a parity vector asks of a method."""

    variant: str
    config: Mapping[str, Any]
    """The release's configuration, as data."""
    inputs: Mapping[str, Tensor]
    """By name; floats in float64."""
    wanted: tuple[str, ...]
    """Names of the recorded outputs, in the order in which they are compared."""
    fill: Callable[[Any], Any]
    """Makes a second module float64 and fills it by the vectors' rule under its own keys; gives it back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How a method is put beside its release: `PARITY` in `reference_impls/parity/<id>.py`."""

    build: Callable[[Mapping[str, Any], str], nn.Module]
    """The module that a release's configuration and variant describe; the method's layout maps the release's keys."""
    outputs: Callable[[Any, ParityCase], Mapping[str, Tensor]]
    """Every wanted output of the filled module, under the vector's name and in its shape; more do no harm."""
    optional: tuple[str, ...] = ()
    """Prefixes of the module's keys that training left in checkpoints, and that a vector may leave out."""
    layout: Layout | None = None
    """How the release's keys are called in the module; None: as the method of the same id says."""
