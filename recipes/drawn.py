"""Weights of drawn numbers, for what can be shown without the published files."""

import io
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


def drawn(module: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Every parameter and buffer of a module drawn anew, so that activations neither vanish nor grow through ReLUs."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in module.state_dict().items():
        if not value.is_floating_point():
            state[key] = value
        elif value.ndim > 1:
            state[key] = torch.randn(value.shape, generator=generator) * math.sqrt(2.0 / value[0].numel())
        elif key.endswith(("running_var", "norm.weight", "bn.weight")):
            state[key] = 0.5 + torch.rand(value.shape, generator=generator)
        else:
            state[key] = 0.1 * torch.randn(value.shape, generator=generator)
    return state


def inception(path: Path, seed: int = 0) -> Path:
    """Write a state file of Inception's shape, as torch-fidelity's own constructor reads it."""
    torch.save(drawn(_Empty(), seed), path)
    return path


class _Empty(FeatureExtractorInceptionV3):  # type: ignore[misc]  # torch-fidelity has no types
    """The network as it is built, where the constructor of the original would fetch and load a file."""

    def __init__(self) -> None:
        nothing = io.BytesIO()
        torch.save({}, nothing)
        nothing.seek(0)
        super().__init__("inception", ["2048"], feature_extractor_weights_path=nothing)

    def load_state_dict(self, *_given: Any, **_more: Any) -> None:
        """Leave everything as it was initialised."""
