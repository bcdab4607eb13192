"""Build a method as a vector says, fill it by the release's keys, run it in float64, and compare every output."""

import os
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tokenmark import registry
from tokenmark.contracts import Layout, ParityCase
from tokenmark.parity import rules
from tokenmark.parity.vector import ParityError, Vector


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one vector."""

    title: str
    keys: int
    outputs: int
    """How many outputs were to be compared; 0 for a manifest, whose keys and shapes are all there is."""
    mismatches: tuple[str, ...]
    """One line each, the first output that departs first; none where all agree."""


def compare(vector: Vector) -> Report:
    """Compare a method with its release.

    Best done in a process that has not computed yet: then MKL is told to round alike on all processors.

    Raises:
        UnknownNameError: nothing says how the vector's system is put beside its release.
        ParityError: the method cannot be built from the vector's configuration, or fails on its inputs.
    """
    # Some releases keep tables that were born in float32, such as frequencies by torch.exp. MKL rounds its exp
    # differently on every kind of processor, and the last bit of a frequency, times a time of 1000, is more than a
    # millionth. In this mode it gives everywhere what the vectors were recorded with. Afterwards it is too late.
    os.environ.setdefault("MKL_CBWR", "COMPATIBLE")
    parity = registry.parity(vector.system)
    layout = parity.layout if parity.layout is not None else registry.get(vector.system).layout
    module = _built(vector)
    problems = key_problems(module, vector, layout, parity.optional if vector.outputs else ())
    if problems or not vector.outputs:
        return Report(vector.title, len(vector.parameters), len(vector.outputs), tuple(problems))
    fill(module, vector, layout)
    inputs = {name: torch.from_numpy(rules.made_input(name, rule)) for name, rule in vector.rules().items()}
    case = ParityCase(vector.variant, vector.config, inputs, tuple(vector.outputs), companion)
    try:
        with torch.no_grad():
            given = parity.outputs(module, case)
    except Exception as error:  # a method may fail on a vector in any way
        raise ParityError(f"{vector.title} fails: {type(error).__name__}: {error}") from error
    lines = [
        f"{name}: {found}"
        for name, expected in vector.outputs.items()
        if (found := _difference(expected.model_dump(), given.get(name)))
    ]
    return Report(vector.title, len(vector.parameters), len(vector.outputs), tuple(lines))


def _built(vector: Vector) -> nn.Module:
    device = "cpu" if vector.outputs else "meta"  # a manifest needs no memory for its weights
    try:
        with torch.device(device):
            module = registry.parity(vector.system).build(vector.config, vector.variant)
    except Exception as error:  # a configuration may be unlike any that the method knows
        raise ParityError(f"{vector.title} cannot be built: {type(error).__name__}: {error}") from error
    return module if device == "meta" else module.double().eval()


def _difference(expected: dict[str, Any], given: Tensor | None) -> str | None:
    if given is None:
        return "is not given by the method's parity file"
    return rules.difference(expected, given.detach().cpu().numpy())


def key_problems(module: nn.Module, vector: Vector, layout: Layout, optional: tuple[str, ...] = ()) -> list[str]:
    """Keys and shapes in which the module's state differs from the release's; one line each, the release's names.

    Keys of the module that begin with one of `optional` may be missing in the release.
    """
    have = {key: list(value.shape) for key, value in module.state_dict().items()}
    wanted = {key: layout.module_key(key) for key in vector.parameters}
    held, lines = set(wanted.values()), []
    for key, own in wanted.items():
        name = key if own == key else f"{key} (here {own})"
        if own not in have:
            lines.append(f"{name}: missing, expected {vector.parameters[key]}")
        elif have[own] != vector.parameters[key]:
            lines.append(f"{name}: {have[own]}, expected {vector.parameters[key]}")
    lines += [f"{key}: no such key in the release" for key in have if key not in held and not key.startswith(optional)]
    twice = [key for key, count in Counter(wanted.values()).items() if count > 1]
    return lines + [f"{key}: stands for several keys of the release" for key in twice]


def fill(module: nn.Module, vector: Vector, layout: Layout) -> None:
    """Fill the state of a module by the release's keys; integer buffers and kept keys stay, given values are set."""
    state = module.state_dict()
    with torch.no_grad():
        for key, shape in vector.parameters.items():
            tensor = state[layout.module_key(key)]
            if key in vector.kept:
                value = vector.kept[key]
                if isinstance(value, int | float | list):
                    tensor.copy_(torch.tensor(value, dtype=torch.float64).reshape(tensor.shape))
            elif tensor.is_floating_point():
                values = rules.weight(key, tuple(shape)) * vector.scale.get(key, 1.0)
                tensor.copy_(torch.from_numpy(np.asarray(values)))


def companion(module: nn.Module) -> nn.Module:
    """A second module that an output needs, in float64, filled by its own keys."""
    module.double().eval()
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(np.asarray(rules.weight(key, tuple(tensor.shape)))))
    return module
