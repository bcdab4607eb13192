"""Distances between two image sets under a protocol: what `tokenmark fid` computes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tokenmark import extractors
from tokenmark.errors import DataError
from tokenmark.extractors import Outputs
from tokenmark.measures import features as mini
from tokenmark.measures import frechet
from tokenmark.measures.inception_score import inception_score
from tokenmark.measures.moments import Gaussian
from tokenmark.protocols import Protocol
from tokenmark.records import Value
from tokenmark.sets import ImageSet

ADM_SPLITS = 5_000
"""Samples in one split of ADM's Inception score."""
EXTRACTORS = {"torch-fidelity": "inception", "pytorch-fid": "inception-pytorch-fid"}
Rows = npt.NDArray[np.float32]
Network = Callable[[Tensor], Outputs]


@dataclass(frozen=True, slots=True)
class Weights:
    """A weights file in the published one's place, and the hash that it must have."""

    path: Path | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Features:
    """What a network made of a set: features `(N, D)`, and sFID's and class scores where it has them."""

    features: Rows
    spatial: Rows | None
    logits: Rows | None


def network(protocol: Protocol, device: torch.device, weights: Weights) -> Network:
    """The feature network of a protocol, for uint8 images `(B, 3, H, W)`.

    Raises:
        WeightsError: its weights are missing or altered.
    """
    if protocol.port == "mini-features":
        small = mini.load("mini-features", device)
        return lambda images: Outputs(small.features(images.float() / 255.0))
    dtype = torch.float64 if protocol.feature_dtype == "float64" else torch.float32
    return extractors.load(
        EXTRACTORS[protocol.port],
        device,
        weights=weights.path,
        sha256=weights.sha256,
        resize=protocol.feature_resize,
        dtype=dtype,
    )


def of_set(
    images: ImageSet,
    seen_by: Network,
    device: torch.device,
    batch: int,
    tell: Callable[[int], None],
) -> Features:
    """Put a whole set through a network; `tell` is told after every batch how many images it held."""
    kept: dict[str, list[Rows]] = {"features": [], "spatial": [], "logits": []}
    with torch.inference_mode():
        for pixels in images.batches(batch):
            outputs = seen_by(torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).to(device))
            for name, rows in kept.items():
                found: Tensor | None = getattr(outputs, name)
                if found is not None:
                    rows.append(found.cpu().numpy())
            tell(len(pixels))
    whole = {name: np.concatenate(rows) if rows else None for name, rows in kept.items()}
    assert whole["features"] is not None  # noqa: S101  a set with images gives features
    return Features(whole["features"], whole["spatial"], whole["logits"])


def compare(judged: Features, reference: Features | None, references: ImageSet) -> list[Value]:
    """FID with its error and its value at infinitely many samples; sFID and Inception score where they can be had.

    Where the reference brings statistics of its own, they are taken, and not its images: ADM's files hold statistics of
    the whole training set and a few of its images.

    Raises:
        DataError: the sets cannot be compared.
    """
    values = []
    for name, kind, rows in (("fid", "pool", "features"), ("sfid", "spatial", "spatial")):
        mine: Rows | None = getattr(judged, rows)
        target = _gaussian(references, kind, reference, rows)
        if mine is None or target is None:
            continue
        if len(target.mean) != mine.shape[1]:
            raise DataError(
                f"{references.path} has statistics of {len(target.mean)} features, this network gives {mine.shape[1]}:"
                " take a protocol with the network that made them"
            )
        n, width = mine.shape
        # with fewer samples than features the covariance is singular, and what needs its inverse means nothing
        error = frechet.standard_error(mine, target) if n > width else None
        values.append(Value(name=name, value=frechet.distance(mine, target), n=n, se=error))
        if name == "fid" and n // 2 > width:
            values.append(Value(name="fid_infinite", value=frechet.infinite(mine, target), n=n))
    if judged.logits is not None:
        n = len(judged.logits)
        score = inception_score(judged.logits, splits=max(n // ADM_SPLITS, 1))
        values.append(Value(name="inception_score", value=score.value, n=n, se=score.se))
    return values


def _gaussian(references: ImageSet, kind: str, reference: Features | None, rows: str) -> Gaussian | None:
    given = references.statistics.get(kind)
    if given is not None:
        # how many images they are of is not said: as many as can matter
        return Gaussian(given.mean, given.covariance, max(10 * len(given.mean), 50_000))
    found: Rows | None = getattr(reference, rows) if reference is not None else None
    return Gaussian.of(found) if found is not None else None
