"""Generation: sample images by class, and compare their distribution with the training images'."""

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor

from tokenmark import build, protocols
from tokenmark.data import catalog
from tokenmark.measures import features
from tokenmark.measures.accuracy import Accuracy
from tokenmark.measures.base import Measure
from tokenmark.measures.frechet import FrechetDistance
from tokenmark.pictures import grid
from tokenmark.quantise import quantised
from tokenmark.spec import RunSpec
from tokenmark.tasks.base import Context, Outcome, Task, computed, finite

ROWS = 4
SEED_STEP = 2654435761
"""A prime near 2^32 divided by the golden ratio (Knuth): its multiples lie far apart modulo 2^32."""


def noise_of(seed: int, index: int) -> torch.Generator:
    """The noise of one sample: any sample can be made again alone, whatever its batch.

    torch seeds a processor's generator with the low 32 bits alone: they hold the index, moved on by a large odd step
    per seed. So no two samples of a run share their noise, nor do runs of fewer than 10^8 samples with nearby seeds.
    """
    return torch.Generator().manual_seed((index + seed * SEED_STEP) % 2**32)


class GenerationSession:
    """A generator under measurement."""

    def __init__(self, spec: RunSpec, context: Context) -> None:
        self._spec, self._device = spec, context.device
        self._protocol = protocols.get(spec.protocol)
        reference = catalog.load(*self._protocol.split("generation"), context.data)
        self._classes, self._warnings = reference.classes, reference.warnings
        self._generator, self._settings = build.generator(
            spec.method, spec.variant or "", str(spec.settings["preset"]), context.device, context.shelf
        )
        self._network = features.load(self._protocol.port, context.device)
        self.total = spec.samples
        makers: dict[str, Callable[[], Measure]] = {
            "gfid": lambda: FrechetDistance(
                "gfid",
                features.of_data(self._network, reference, len(reference), context.device).astype(np.float64),
                paired=False,
            ),
            "class-accuracy": lambda: Accuracy("class_accuracy"),
        }
        self.measures = {name: makers[name]() for name in spec.measures}

    def _sample(self, indices: range) -> tuple[Tensor, Tensor]:
        labels = torch.tensor([index % self._classes for index in indices], device=self._device)
        noise = [noise_of(self._spec.seed, index) for index in indices]
        images = self._generator.sample(labels, noise, self._settings)
        return quantised(finite(images, self._spec.title, "images"), self._protocol.uint8_rule), labels

    def step(self, start: int, stop: int) -> None:
        """Sample the images of these indices."""
        with torch.inference_mode():
            images, labels = self._sample(range(start, stop))
            seen = self._network.features(images).cpu().numpy()
            right = (self._network(images).argmax(dim=1) == labels).cpu().numpy()
            for measure in self.measures.values():
                match measure:
                    case FrechetDistance():
                        measure.update(seen)
                    case Accuracy():
                        measure.update(right)

    def finish(self, say: Callable[[str], None]) -> Outcome:
        """Values, and a picture of the first samples, a column per class."""
        say("distances")
        with torch.inference_mode():
            images, _ = self._sample(range(min(ROWS * self._classes, self.total)))
        return Outcome(
            values=computed(self.measures.values()),
            details={"parameters": self._generator.parameters_total, "classes": self._classes},
            warnings=self._warnings,
            pictures={
                "samples": (grid(images.cpu(), self._classes), f"{self._spec.title}: the first samples, class by class")
            },
        )


GENERATION = Task(
    name="generation",
    title="Generation",
    measures=("gfid", "class-accuracy"),
    open=cast("Callable[[RunSpec, Context], GenerationSession]", GenerationSession),
)
