"""Read a parity vector, fill a module as it says, and compare outputs with it.

A vector records what a paper's official release gives for weights and inputs made by rule; see `tokenmark.parity`.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokenmark.parity import rules

VECTORS = Path(__file__).parent / "vectors"


def load(name: str) -> dict[str, Any]:
    """The vector `tests/vectors/<name>.json`."""
    with (VECTORS / f"{name}.json").open() as file:
        return json.load(file)


def fill(module: nn.Module, vector: dict[str, Any]) -> nn.Module:
    """Make `module` float64 and in evaluation mode, and fill it; its keys and shapes must be the vector's."""
    module.double().eval()
    state = module.state_dict()
    got = {key: list(value.shape) for key, value in state.items()}
    expected = {key: list(shape) for key, shape in vector["parameters"].items()}
    differing = sorted(key for key in got.keys() | expected.keys() if got.get(key) != expected.get(key))
    lines = [f"{key}: {got.get(key, 'missing')}, expected {expected.get(key, 'no such key')}" for key in differing]
    assert not differing, "state dict differs from the release's:\n" + "\n".join(lines[:20])
    with torch.no_grad():
        for key, tensor in state.items():
            if key not in vector.get("kept", ()) and tensor.is_floating_point():
                tensor.copy_(torch.from_numpy(rules.weight(key, tuple(tensor.shape))))
    return module


def inputs(vector: dict[str, Any]) -> dict[str, Tensor]:
    """The vector's inputs: float64, or int64 where their values are given as integers."""
    return {name: torch.from_numpy(rules.made_input(name, spec)) for name, spec in vector["inputs"].items()}


def check(vector: dict[str, Any], **outputs: Tensor) -> None:
    """Assert that every output equals the one that the vector records under its name."""
    lines = []
    for name, tensor in outputs.items():
        assert name in vector["outputs"], f"the vector has no output '{name}': {', '.join(vector['outputs'])}"
        if found := rules.difference(vector["outputs"][name], tensor.detach().cpu().numpy()):
            lines.append(f"{name}: {found}")
    assert not lines, "\n".join(lines)


def check_keys(module: nn.Module, vector: dict[str, Any]) -> None:
    """Assert that the state dict has exactly the vector's keys, in its order, with its shapes."""
    got = [(key, list(value.shape)) for key, value in module.state_dict().items()]
    assert got == [(key, list(shape)) for key, shape in vector["parameters"].items()]
