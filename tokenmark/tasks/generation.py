"""Generation: sample images by class, and compare their distribution with a reference."""

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor

from tokenmark import build, networks, protocols, references
from tokenmark.autocast import autocast
from tokenmark.errors import DataError
from tokenmark.extractors import Outputs
from tokenmark.measures.accuracy import Accuracy
from tokenmark.measures.base import Measure
from tokenmark.measures.frechet import FrechetDistance
from tokenmark.measures.inception_score import InceptionScoreMeasure
from tokenmark.measures.neighbours import PrecisionRecallMeasure
from tokenmark.pictures import grid
from tokenmark.protocols import Protocol
from tokenmark.quantise import quantised
from tokenmark.spec import RunSpec
from tokenmark.tasks.base import Context, Outcome, Task, computed, finite

ROWS, COLUMNS = 4, 10
"""Of the picture."""
SEED_STEP = 2654435761
"""A prime near 2^32 divided by the golden ratio (Knuth): its multiples lie far apart modulo 2^32."""


def noise_of(seed: int, index: int) -> torch.Generator:
    """The noise of one sample: any sample can be made again alone, whatever its batch.

    torch seeds a processor's generator with the low 32 bits alone: they hold the index, moved on by a large odd step
    per seed. So no two samples of a run share their noise, nor do runs of fewer than 10^8 samples with nearby seeds.
    """
    return torch.Generator().manual_seed((index + seed * SEED_STEP) % 2**32)


def labels_of(protocol: Protocol, classes: int, seed: int, start: int, stop: int) -> Tensor:
    """The classes that samples of these indices are asked for, int64 `(stop - start,)`.

    Raises:
        DataError: the protocol leaves classes to the caller.
    """
    if protocol.class_sampling == "balanced" and classes:
        return torch.arange(start, stop) % classes
    if protocol.class_sampling == "random" and classes:
        draws = np.random.Generator(np.random.Philox(seed)).integers(classes, size=stop)
        return torch.from_numpy(draws[start:])
    raise DataError(f"protocol {protocol.id} says no classes to sample: choose one made for generation")


class GenerationSession:
    """A generator under measurement."""

    def __init__(self, spec: RunSpec, context: Context) -> None:
        self._spec, self._device = spec, context.device
        self._protocol = protocols.get(spec.protocol)
        self._classes = self._protocol.classes or 0
        self._generator, self._settings = build.generator(
            spec.method, spec.variant or "", str(spec.settings["preset"]), context.device, context.shelf
        )
        self._network = networks.load(self._protocol, context.device, shelf=context.shelf)
        self._reference = references.load(
            self._protocol,
            self._network,
            context.data,
            context.device,
            networks.seen_as(self._protocol, spec.weights, context.device),
        )
        self.total = spec.samples
        makers: dict[str, Callable[[], Measure]] = {
            "gfid": lambda: FrechetDistance("gfid", self._reference.pool),
            "sfid": self._sfid,
            "inception-score": lambda: InceptionScoreMeasure.under(self._protocol, spec.samples, spec.seed),
            "precision-recall": lambda: PrecisionRecallMeasure(self._reference.images(), device=self._device),
            "class-accuracy": lambda: Accuracy("class_accuracy"),
        }
        self.measures = {name: makers[name]() for name in spec.measures}

    def _sfid(self) -> Measure:
        if self._reference.spatial is None:
            raise DataError(
                f"the reference of protocol {self._protocol.id} has no spatial features: leave out the measure 'sfid'"
            )
        return FrechetDistance("sfid", self._reference.spatial, extrapolate=False)

    def _sample(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        labels = labels_of(self._protocol, self._classes, self._spec.seed, start, stop).to(self._device)
        noise = [noise_of(self._spec.seed, index) for index in range(start, stop)]
        with autocast(self._protocol, self._device):
            images = self._generator.sample(labels, noise, self._settings)
        return quantised(finite(images.float(), self._spec.title, "images"), self._protocol.uint8_rule), labels

    def step(self, start: int, stop: int) -> None:
        """Sample the images of these indices."""
        with torch.inference_mode():
            images, labels = self._sample(start, stop)
            seen = self._network(images)
            for name, measure in self.measures.items():
                _update(name, measure, seen, labels)

    def finish(self, say: Callable[[str], None]) -> Outcome:
        """Values, and a picture of the first samples, a column per class."""
        say("distances")
        columns = min(COLUMNS, self._classes)
        with torch.inference_mode():
            images, _ = self._sample(0, min(ROWS * columns, self.total))
        return Outcome(
            values=computed(self.measures.values()),
            details={"parameters": self._generator.parameters_total, "classes": self._classes},
            warnings=self._reference.warnings,
            pictures={
                "samples": (grid(images.cpu(), columns), f"{self._spec.title}: the first samples, class by class")
            },
        )


def _update(name: str, measure: Measure, seen: Outputs, labels: Tensor) -> None:
    match measure:
        case FrechetDistance():
            rows = seen.spatial if name == "sfid" else seen.features
            assert rows is not None  # noqa: S101  without spatial features there is no sFID
            measure.update(rows.cpu().numpy())
        case PrecisionRecallMeasure():
            measure.update(seen.features.cpu().numpy())
        case InceptionScoreMeasure() if seen.logits is not None:
            measure.update(seen.logits.cpu().numpy())
        case Accuracy() if seen.logits is not None:
            measure.update((seen.logits.argmax(dim=1) == labels).cpu().numpy())


GENERATION = Task(
    name="generation",
    title="Generation",
    measures=("gfid", "sfid", "inception-score", "precision-recall", "class-accuracy"),
    usual=("gfid", "class-accuracy"),
    open=cast("Callable[[RunSpec, Context], GenerationSession]", GenerationSession),
)
