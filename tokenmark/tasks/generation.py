"""Generation: sample images by class, and compare their distribution with a reference."""

from collections.abc import Callable
from typing import cast

import torch
from pydantic import JsonValue
from torch import Tensor

from tokenmark import networks, protocols, references
from tokenmark.errors import DataError
from tokenmark.extractors import Outputs
from tokenmark.kept import Kept
from tokenmark.measures import lpips
from tokenmark.measures.accuracy import Accuracy
from tokenmark.measures.base import Measure
from tokenmark.measures.frechet import FrechetDistance
from tokenmark.measures.inception_score import InceptionScoreMeasure
from tokenmark.measures.neighbours import PrecisionRecallMeasure
from tokenmark.measures.pixels import PixelMeasure
from tokenmark.pictures import grid
from tokenmark.records import Value
from tokenmark.spec import RunSpec
from tokenmark.tasks.base import Context, Outcome, Task, computed
from tokenmark.tasks.sampler import Sampler, macs_of

ROWS, COLUMNS = 4, 10
"""Of the picture."""
COST = "cost"
"""The measure that is counted, not summed over images."""


class GenerationSession:
    """A generator under measurement."""

    def __init__(self, spec: RunSpec, context: Context) -> None:
        self._spec, self._device = spec, context.device
        self._protocol = protocols.get(spec.protocol)
        self._sampler = Sampler(spec, context.device, context.shelf)
        self._network = networks.load(self._protocol, context.device, shelf=context.shelf)
        self._reference = references.load(
            self._protocol,
            self._network,
            context.data,
            context.device,
            networks.seen_as(self._protocol, spec.weights, context.device),
        )
        self._kept = Kept(context.keep, spec.run, spec.samples) if context.keep else None
        self.total = spec.samples
        makers: dict[str, Callable[[], Measure]] = {
            "gfid": lambda: FrechetDistance("gfid", self._reference.pool),
            "sfid": self._sfid,
            "inception-score": lambda: InceptionScoreMeasure.under(self._protocol, spec.samples, spec.seed),
            "precision-recall": lambda: PrecisionRecallMeasure(self._reference.images(), device=self._device),
            "class-accuracy": lambda: Accuracy("class_accuracy"),
            "psnr": lambda: PixelMeasure("psnr"),
            "ssim": lambda: PixelMeasure("ssim"),
            "lpips": lambda: PixelMeasure("lpips", lpips.load("alex", self._device, shelf=context.shelf)),
        }
        self.measures = {name: makers[name]() for name in spec.measures if name != COST}

    def _sfid(self) -> Measure:
        if self._reference.spatial is None:
            raise DataError(
                f"the reference of protocol {self._protocol.id} has no spatial features: leave out the measure 'sfid'"
            )
        return FrechetDistance("sfid", self._reference.spatial, extrapolate=False)

    def step(self, start: int, stop: int) -> None:
        """Sample the images of these indices."""
        images, labels = self._sampler.images(start, stop), self._sampler.labels(start, stop)
        if self._kept is not None:
            self._kept.add(start, images, labels)
        with torch.inference_mode():
            seen = self._network(images)
            for name, measure in self.measures.items():
                _update(name, measure, seen, labels)
        self._compare(images, start, stop)

    def _compare(self, images: Tensor, start: int, stop: int) -> None:
        """With what the unreduced sampler makes of the same classes and the same noise."""
        asked = [measure for measure in self.measures.values() if isinstance(measure, PixelMeasure)]
        if asked:
            control = self._sampler.images(start, stop, control=True)
            with torch.inference_mode():
                for measure in asked:
                    measure.update(images, control)

    def finish(self, say: Callable[[str], None]) -> Outcome:
        """Values, and a picture of the first samples, a column per class where classes come in turn."""
        say("distances")
        columns = min(COLUMNS, self._sampler.classes)
        images = self._sampler.images(0, min(ROWS * columns, self.total))
        values = computed(self.measures.values())
        if COST in self._spec.measures:
            say("counting")
            values += self._costs()
        if self._kept is not None:
            say("keeping samples")
            keep(self._kept, self._sampler, self._spec.batch_size)
        return Outcome(
            values=values,
            details=self._details(),
            warnings=self._reference.warnings,
            pictures={"samples": (grid(images.cpu(), columns), f"{self._spec.title}: the first samples")},
        )

    def _costs(self) -> list[Value]:
        """Steps of the sampler, and multiply-accumulates of one image with guidance and decoder."""
        spec, sampler = self._spec, self._sampler
        steps = sampler.generator.steps(sampler.preset.settings)
        variant = spec.variant or ""
        macs = macs_of(spec.method, variant, sampler.preset, spec.settings)
        values = [Value(name="steps", value=float(steps), n=1), Value(name="macs", value=float(macs), n=1)]
        if sampler.reduced is not None:
            whole = macs_of(spec.method, variant, sampler.preset)
            values.append(Value(name="macs_ratio", value=macs / whole, n=1))
        return values

    def _details(self) -> dict[str, JsonValue]:
        """What a reader must know of the samples."""
        sampler, preset = self._sampler, self._sampler.preset
        published = {
            "printed": preset.printed,
            "seed": preset.seed,
            "world_size": preset.world_size,
            "batch_size": preset.batch_size,
        }
        details: dict[str, JsonValue] = {
            "parameters": sampler.generator.parameters_total,
            "classes": sampler.classes,
            "class_order": sampler.order,
            "noise": "of the seed and the sample's index",
        }
        told: dict[str, JsonValue] = {name: value for name, value in published.items() if value not in {"", None}}
        return details | ({"published": told} if told else {})


def keep(kept: Kept, sampler: Sampler, batch: int, tell: Callable[[int, int], object] = max) -> None:
    """Make the samples that are not kept yet, each as it was or would have been, and write the npz.

    `tell` hears how many of how many are there.

    Raises:
        StorageError: the disk is full, or the like.
    """
    if kept.done:
        return
    missing = kept.missing()
    while missing:
        tell(kept.n - len(missing), kept.n)
        start = missing[0]
        stop = min(start + batch, kept.n)
        kept.add(start, sampler.images(start, stop), sampler.labels(start, stop))
        missing = [index for index in missing if index >= stop]
    kept.finish()


def keep_more(spec: RunSpec, context: Context, tell: Callable[[int, int], object]) -> None:
    """Keep samples of a run that has its record already."""
    if context.keep is None:
        return
    kept = Kept(context.keep, spec.run, spec.samples)
    if not kept.done:
        keep(kept, Sampler(spec, context.device, context.shelf), spec.batch_size, tell)


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
    measures=(
        *("gfid", "sfid", "inception-score", "precision-recall", "class-accuracy"),
        *("psnr", "ssim", "lpips", COST),
    ),
    usual=("gfid", "class-accuracy", COST),
    open=cast("Callable[[RunSpec, Context], GenerationSession]", GenerationSession),
    present=keep_more,
)
