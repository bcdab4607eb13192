"""The feature network of a protocol: its weights, and the way from images to what measures take from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from tokenmark import extractors
from tokenmark.errors import SuiteError
from tokenmark.extractors import Outputs
from tokenmark.measures import features as mini
from tokenmark.protocols import Protocol
from tokenmark.shelf import Shelf
from tokenmark.weights import Weights

EXTRACTORS = {"torch-fidelity": "inception", "pytorch-fid": "inception-pytorch-fid"}
"""A port's name among the extractors."""
Network: TypeAlias = Callable[[Tensor], Outputs]
"""Images `(B, 3, H, W)`, uint8 or floats in [0, 1], to everything that measures take from them."""


@dataclass(frozen=True, slots=True)
class Given:
    """A weights file in the published one's place, and the hash that it must have."""

    path: Path | None = None
    sha256: str | None = None


PUBLISHED = Given()


def check(protocol: Protocol, shelf: Shelf) -> Weights:
    """The weights that a protocol's network reads, their bytes checked.

    Raises:
        SuiteError: the protocol compares no images.
        WeightsError: they are missing or altered.
    """
    _compares(protocol)
    if protocol.port == "mini-features":
        return mini.check(protocol.port)
    return extractors.check(EXTRACTORS[protocol.port], shelf)


def load(protocol: Protocol, device: torch.device, given: Given = PUBLISHED, shelf: Shelf | None = None) -> Network:
    """The feature network of a protocol, with its resize and number type.

    Raises:
        SuiteError: the protocol compares no images.
        WeightsError: its weights are missing or altered.
    """
    _compares(protocol)
    if protocol.port == "mini-features":
        return _outputs_of(mini.load(protocol.port, device))
    dtype = torch.float64 if protocol.feature_dtype == "float64" else torch.float32
    return extractors.load(
        EXTRACTORS[protocol.port],
        device,
        weights=given.path,
        sha256=given.sha256,
        resize=protocol.feature_resize,
        dtype=dtype,
        shelf=shelf,
    )


def seen_as(protocol: Protocol, weights: Mapping[str, str], device: torch.device) -> tuple[str, ...]:
    """What decides the features of an image beside its pixels: protocol, the network's weights by hash, and device.

    `weights` holds hashes by name, as a run's specification does.
    """
    known = EXTRACTORS.get(protocol.port)
    name = extractors.recipe(known).file.key if known else protocol.port
    return protocol.sha256, weights.get(name, ""), str(device)


def _compares(protocol: Protocol) -> None:
    if protocol.port == "none":
        raise SuiteError(
            f"protocol {protocol.id} has no feature network, so it compares no images: choose one that has"
            " (`tokenmark protocols`)"
        )


def _outputs_of(network: mini.MiniFeatures) -> Network:
    def outputs(images: Tensor) -> Outputs:
        levels = images.float() / 255.0 if images.dtype == torch.uint8 else images
        features = network.features(levels)
        return Outputs(features, logits=network.classes(features))

    return outputs
