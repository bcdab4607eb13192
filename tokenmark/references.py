"""What generated images are compared with: the features of a data set, or statistics that others computed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tokenmark import distances, sets, splits
from tokenmark.errors import DataError, MissingDataError
from tokenmark.files import digest_of
from tokenmark.measures.moments import Gaussian
from tokenmark.measures.reference import shared
from tokenmark.networks import Network
from tokenmark.protocols import Protocol
from tokenmark.sets import ImageSet

BATCH = 64
"""Images per call of the feature network."""
SOURCES = {
    "VIRTUAL_imagenet256_labeled.npz": "evaluations/README.md of openai/guided-diffusion on GitHub (ImageNet 256x256)",
    "VIRTUAL_imagenet512.npz": "evaluations/README.md of openai/guided-diffusion on GitHub (ImageNet 512x512)",
    "adm_in256_stats.npz": "the folder fid_stats of LTH14/mar on GitHub",
    "fid_stats_imagenet256_guided_diffusion.npz": "the reference statistics that baofff/U-ViT's README on GitHub names",
}
"""Where published statistics are to be had."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One side of gFID, sFID, precision and recall."""

    pool: Gaussian
    spatial: Gaussian | None
    images: Callable[[], npt.NDArray[np.float32]]
    """Features `(N, D)` of its images, for precision and recall; a DataError where it has none."""
    warnings: list[str] = field(default_factory=list)


def check(protocol: Protocol, folder: Path) -> dict[str, str]:
    """The hash of a protocol's reference, by its name.

    Raises:
        MissingDataError: it is not in `folder`.
        DataError: it is damaged.
    """
    if protocol.data is not None:
        data = splits.load(protocol, "generation", folder)
        return {"/".join(protocol.split("generation")): data.manifest.sha256}
    path = _statistics_file(protocol, folder)
    return {path.name: digest_of(path)}


def load(
    protocol: Protocol, network: Network, folder: Path, device: torch.device, seen_as: tuple[str, ...]
) -> Reference:
    """A protocol's reference as its feature network sees it; `seen_as` says how, see `networks.seen_as`.

    Raises:
        MissingDataError: it is not in `folder`.
        DataError: it is damaged, or of another network's features.
    """
    if protocol.data is None:
        return _of_file(sets.open_set(_statistics_file(protocol, folder)), network, device, seen_as)
    data = splits.load(protocol, "generation", folder)
    images = sets.of_prepared(data, folder)
    seen = distances.of_set(images, network, device, BATCH, lambda _: None)
    spatial = Gaussian.of(seen.spatial) if seen.spatial is not None else None
    return Reference(Gaussian.of(seen.features), spatial, lambda: seen.features, data.warnings)


def _of_file(file: ImageSet, network: Network, device: torch.device, seen_as: tuple[str, ...]) -> Reference:
    pool = distances.given(file, "pool")
    if pool is None:
        raise DataError(f"{file.path} holds no statistics (mu and sigma): get it again from {SOURCES[file.path.name]}")

    def images() -> npt.NDArray[np.float32]:
        if not file.n:
            raise DataError(f"{file.path} holds no images (arr_0), which precision and recall need: leave them out")
        rows = shared(file.n, digest_of(file.path), *seen_as)
        return rows.of(0, file.n, lambda: distances.of_set(file, network, device, BATCH, lambda _: None).features)

    return Reference(pool, distances.given(file, "spatial"), images)


def _statistics_file(protocol: Protocol, folder: Path) -> Path:
    name = protocol.generation_reference
    if name is None:
        raise DataError(f"protocol {protocol.id} has no reference for generation: choose another protocol")
    path = folder / name
    if not path.is_file():
        raise MissingDataError(f"{name} is not in {folder}: get it from {SOURCES[name]} and put it there")
    return path
