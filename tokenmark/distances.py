"""Distances between two image sets under a protocol: what `tokenmark fid` computes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tokenmark.errors import DataError
from tokenmark.measures.frechet import FrechetDistance
from tokenmark.measures.inception_score import InceptionScoreMeasure
from tokenmark.measures.moments import Gaussian
from tokenmark.networks import Network
from tokenmark.protocols import Protocol
from tokenmark.records import Value
from tokenmark.sets import ImageSet

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Features:
    """What a network made of a set: features `(N, D)`, and sFID's and class scores where it has them."""

    features: Rows
    spatial: Rows | None
    logits: Rows | None


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


def compare(protocol: Protocol, judged: Features, reference: Features | None, references: ImageSet) -> list[Value]:
    """FID with its error and its value at infinitely many samples; sFID and Inception score where they can be had.

    Where the reference brings statistics of its own, they are taken, and not its images: ADM's files hold statistics of
    the whole training set and a few of its images.

    Raises:
        DataError: the sets cannot be compared.
    """
    values = []
    for name, kind, rows in (("fid", "pool", "features"), ("sfid", "spatial", "spatial")):
        mine: Rows | None = getattr(judged, rows)
        theirs: Rows | None = getattr(reference, rows) if reference is not None else None
        target = given(references, kind) or (Gaussian.of(theirs) if theirs is not None else None)
        if mine is None or target is None:
            continue
        check_width(target, mine.shape[1], references.path)
        measure = FrechetDistance(name, target, extrapolate=name == "fid")
        measure.update(mine)
        values += measure.compute()
    if judged.logits is not None:
        score = InceptionScoreMeasure.under(protocol, len(judged.logits), protocol.seed)
        score.update(judged.logits)
        values += score.compute()
    return values


def given(references: ImageSet, kind: str) -> Gaussian | None:
    """Statistics that a reference file brings: `pool` or `spatial`."""
    found = references.statistics.get(kind)
    # how many images they are of is not said: as many as can matter
    return Gaussian(found.mean, found.covariance, max(10 * len(found.mean), 50_000)) if found else None


def check_width(target: Gaussian, width: int, path: Path) -> None:
    """Refuse statistics of another network.

    Raises:
        DataError: they are of features of another width.
    """
    if len(target.mean) != width:
        raise DataError(
            f"{path} has statistics of {len(target.mean)} features, this network gives {width}:"
            " take a protocol with the network that made them"
        )
