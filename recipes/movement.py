"""`nox -s movement`: how far one fixed pair of image sets moves under each protocol with an image network.

Judged are windows of two photographs that come with scikit-learn, halved and enlarged again; they are compared with the
windows themselves. What the network sees of them is compared in grey levels, for which weights do not matter, and the
distance is computed with the weights that are given, or with drawn ones. docs/protocols.md shows what was found.
"""

import hashlib
import importlib.metadata
import json
import shlex
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.nn import functional

from recipes import drawn
from tokenmark import networks, protocols, provenance
from tokenmark.extractors import Extractor
from tokenmark.extractors.inception import FILE
from tokenmark.files import sha256_of, write_atomic
from tokenmark.measures import frechet
from tokenmark.measures.moments import Gaussian
from tokenmark.networks import EXTRACTORS, Given
from tokenmark.number_types import number_types
from tokenmark.protocols import Protocol
from tokenmark.quantise import quantised

FOUND = Path("results/movement.json")
SIDE, COLUMNS, BATCH = 256, 10, 20
LEFT_OUT = ("val50k-512", "adm-train-512", "mar-fork", "enat-float")
"""Protocols of images of another side, and two that see images as torch-fidelity and pytorch-fid-float do."""
BASE = "torch-fidelity"
"""The protocol from which movement is counted."""
HALF = 128.0
"""torch-fidelity's network sees (grey level - 128) / 128."""
ORIGINALS = "256 x 256 windows on a grid over the two photographs of sklearn.datasets.load_sample_images"
JUDGED = "the same windows, halved (bicubic, antialiased) and enlarged again (bicubic) as floats, cut off at 0 and 1"


@dataclass(frozen=True, slots=True)
class Pair:
    """The two sets, `(N, 3, 256, 256)`: originals uint8, judged floats in [0, 1]."""

    originals: Tensor
    judged: Tensor


def pair(images: int) -> Pair:
    """As many windows of the one photograph as of the other, in whole rows, and what halving leaves of them."""
    windows = [window for photograph in load_sample_images().images for window in _windows(photograph, images // 2)]
    originals = torch.from_numpy(np.stack(windows)).permute(0, 3, 1, 2).contiguous()
    half = functional.interpolate(originals / 255.0, (SIDE // 2, SIDE // 2), mode="bicubic", antialias=True)
    judged = functional.interpolate(half, (SIDE, SIDE), mode="bicubic").clamp(0.0, 1.0)
    return Pair(originals, judged)


def _windows(photograph: npt.NDArray[np.uint8], count: int) -> list[npt.NDArray[np.uint8]]:
    columns = min(COLUMNS, count)
    height, width = photograph.shape[:2]
    tops, lefts = (
        np.linspace(0, length - SIDE, steps).astype(int)
        for length, steps in ((height, count // columns), (width, columns))
    )
    return [photograph[top : top + SIDE, left : left + SIDE] for top in tops for left in lefts]


def measured() -> list[Protocol]:
    """The protocols under which images of this size are compared by a published network."""
    known = protocols.PROTOCOLS.values()
    return [each for each in known if each.port in EXTRACTORS and each.id not in LEFT_OUT]


class Movement:
    """The pair under one protocol after another; protocols with one network share it, and the originals' features."""

    def __init__(self, images: Pair, weights: Given, device: torch.device, tell: Callable[[int], object]) -> None:
        self._images, self._weights, self._device, self._tell = images, weights, device, tell
        self._networks: dict[tuple[Any, ...], tuple[Extractor, Gaussian]] = {}

    def row(self, protocol: Protocol) -> dict[str, Any]:
        """What moves under a protocol: its network's input in grey levels of torch-fidelity's, and the distance."""
        base, usual = protocols.get(BASE), self._seen(protocols.get(BASE))[0]
        with number_types(protocol), torch.inference_mode():
            network, reference = self._seen(protocol)
            judged = quantised(self._images.judged, protocol.uint8_rule)
            fid = frechet.distance(self._features(network, judged), reference)
            gaps = [
                HALF * (network.prepared(seen).double() - usual.prepared(quantised(part, base.uint8_rule))).abs()
                for part, seen in zip(self._batches(self._images.judged), self._batches(judged), strict=True)
            ]
        return {
            "protocol": protocol.id,
            "protocol_sha256": protocol.sha256,
            "mean_grey_levels": float(torch.cat([gap.flatten(1).mean(dim=1) for gap in gaps]).mean()),
            "max_grey_levels": max(float(gap.max()) for gap in gaps),
            "fid": fid,
        }

    def _seen(self, protocol: Protocol) -> tuple[Extractor, Gaussian]:
        key = (protocol.port, protocol.feature_resize, protocol.feature_dtype, protocol.tf32)
        if key not in self._networks:
            network = cast("Extractor", networks.load(protocol, self._device, self._weights))
            with number_types(protocol), torch.inference_mode():
                self._networks[key] = network, Gaussian.of(self._features(network, self._images.originals))
        return self._networks[key]

    def _features(self, network: Extractor, images: Tensor) -> npt.NDArray[np.float32]:
        parts = []
        for part in self._batches(images):
            parts.append(network.features(part).cpu().numpy())
            self._tell(len(part))
        return np.concatenate(parts)

    def _batches(self, images: Tensor) -> list[Tensor]:
        return [part.to(self._device) for part in images.split(BATCH)]


def rows(images: Pair, weights: Given, device: torch.device) -> list[dict[str, Any]]:
    """A row per protocol that has an image network."""
    columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn())
    chosen = measured()
    passes = len(chosen) + len({(p.port, p.feature_resize, p.feature_dtype, p.tf32) for p in chosen})
    found = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=passes * len(images.judged))
        movement = Movement(images, weights, device, lambda count: progress.advance(bar, count))
        for protocol in chosen:
            progress.update(bar, description=protocol.id)
            found.append(movement.row(protocol))
    return found


def report(images: Pair, weights: Given, device: torch.device, seed: int | None) -> dict[str, Any]:
    """What docs/protocols.md says of the movement, and what it was measured with; `seed` is that of drawn weights."""
    environment = provenance.environment(device)
    kept = ("commit", "dirty", "lock_sha256", "python", "device_name", "threads", "libraries")
    return {
        "command": shlex.join(["nox", "-s", "movement", *(["--", *sys.argv[1:]] if sys.argv[1:] else [])]),
        "images": {
            "n": len(images.judged),
            "originals": ORIGINALS,
            "judged": JUDGED,
            "scikit-learn": importlib.metadata.version("scikit-learn"),
            "originals_sha256": hashlib.sha256(images.originals.numpy().tobytes()).hexdigest(),
        },
        "weights": {"published": weights.sha256 == FILE.sha256, "sha256": weights.sha256, "drawn_from_seed": seed},
        "environment": environment.model_dump(mode="json", include=set(kept)),
        "rows": rows(images, weights, device),
    }


@click.command()
@click.option("--images", default=100, show_default=True, type=click.IntRange(min=40), help="A multiple of 20.")
@click.option("--weights", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=f"{FILE.name}")
@click.option("--sha256", default=FILE.sha256, show_default=True, help="The hash that --weights must have.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--output", default=FOUND, show_default=True, type=click.Path(path_type=Path))
def main(images: int, weights: Path | None, sha256: str, device: str, output: Path) -> None:
    """Measure, and write what was found; without --weights, with numbers drawn from a seed."""
    if images % (2 * COLUMNS):
        raise click.BadParameter("windows lie in whole rows: take a multiple of 20", param_hint="--images")
    place, both = torch.device(device), pair(images)
    if weights is not None:
        found = report(both, Given(weights, sha256), place, None)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = drawn.inception(Path(folder) / FILE.name, seed := 0)
            found = report(both, Given(path, sha256_of(path)), place, seed)
    write_atomic(output, (json.dumps(found, indent=1) + "\n").encode())
    click.echo(f"{output} is written: `nox -s docs` makes the table in docs/protocols.md from it")


if __name__ == "__main__":
    main()
