"""Classification: accuracy, cost and speed of a classifier whose tokens are reduced, beside the classifier itself."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tokenmark.contracts import BlockTokens, ReducedModel
from tokenmark.measures import energy
from tokenmark.measures.accuracy import Accuracy
from tokenmark.measures.audit import TOLERANCES
from tokenmark.measures.base import Measure
from tokenmark.measures.cost import counted_macs
from tokenmark.measures.sweep import Sweep, sweep
from tokenmark.measures.throughput import Timed, Timing
from tokenmark.records import Value
from tokenmark.spec import RunSpec
from tokenmark.tasks.base import Context, Outcome, Task, computed, finite
from tokenmark.tasks.contenders import COMPILED, EAGER, FUSED, METHOD, Contenders
from tokenmark.tasks.inputs import filled, inputs_of

ADAPTIVE_IMAGES = 512
"""Images whose tokens are counted where images keep different numbers of them."""
COUNTER_TOLERANCE = 0.01
"""The formula must agree with the counter within this share on the unreduced model."""


class ClassificationSession:
    """A reduced classifier under measurement."""

    def __init__(self, spec: RunSpec, context: Context) -> None:
        self._spec, self._device = spec, context.device
        self._contenders = Contenders(spec, context.device, context.shelf)
        self._data = inputs_of(spec, self._contenders.backbone.shape, context)
        paired = self._contenders.base is not None
        asked = "accuracy" in spec.measures
        self.measures: dict[str, Measure] = (
            {"accuracy": Accuracy("top1", paired=paired), "top5": Accuracy("top5", paired=paired)} if asked else {}
        )
        self.total = spec.samples if self.measures else 0

    def step(self, start: int, stop: int) -> None:
        """Classify these images with both models, on the path that is timed later."""
        with torch.inference_mode():
            images, labels = self._data.batch(start, stop, self._device)
            scores = finite(self._contenders.method(images), self._spec.title, "class scores")
            ranks = [_ranks(scores, labels)]
            if self._contenders.base is not None:
                ranks.append(_ranks(self._contenders.base(images), labels))
        for name, most in (("accuracy", 1), ("top5", 5)):
            cast("Accuracy", self.measures[name]).update(*(each < most for each in ranks))

    def finish(self, say: Callable[[str], None]) -> Outcome:
        """Accuracy, then cost, then speed, as far as they are asked for."""
        outcome = Outcome(computed(self.measures.values()), warnings=self._data.warnings)
        if self._spec.model is not None and self._contenders.backbone.random:
            outcome.details["weights"] = f"random, drawn from seed {self._spec.seed}; no accuracy was measured"
        if "cost" in self._spec.measures:
            say("cost")
            self._cost(outcome)
        if "throughput" in self._spec.measures:
            self._throughput(outcome, say)
        return outcome

    def _cost(self, outcome: Outcome) -> None:
        image = self._data.batch(0, 1, self._device)[0]
        parameters = sum(parameter.numel() for parameter in self._contenders.network.parameters())
        with sdpa_kernel(SDPBackend.MATH):  # fused kernels are invisible to the counter on some devices
            counted = counted_macs(self._contenders.eager, image)
            base = self._contenders.base
            counted_base = counted_macs(base, image) if base is not None else counted
        numbers: dict[str, float] = {"macs_counted": counted, "parameters": parameters}
        n, reduced = 1, self._contenders.reduced
        if reduced is None:
            numbers["macs"] = counted  # a classifier of its own architecture has no formula but the counter
        else:
            unreduced = self._contenders.unreduced
            full = unreduced.cost.macs(unreduced.schedule)
            macs, schedule, n = self._macs(reduced, outcome)
            told = {"the unreduced model": (full, counted_base)}
            if not reduced.adaptive:
                told["the reduced model"] = (int(macs) + reduced.extra_macs, counted)
            for what, (formula, count) in told.items():
                if abs(count - formula) > COUNTER_TOLERANCE * formula:
                    outcome.warnings.append(f"formula gives {formula} MACs for {what}, the counter {count}")
            numbers |= {"macs": macs, "macs_method": reduced.extra_macs, "macs_ratio": macs / full}
            numbers["tokens_left"] = schedule[-1][1]
            outcome.details["schedule"] = cast("JsonValue", schedule)
        outcome.values += [Value(name=name, value=float(number), n=n) for name, number in numbers.items()]

    def _macs(self, reduced: ReducedModel, outcome: Outcome) -> tuple[float, list[list[float]], int]:
        """MACs of an image, the tokens that enter attention and MLP of every block, and how many images were looked at.

        Where images keep different numbers of tokens both are means over images.
        """
        if not reduced.adaptive:
            counts = [[float(block.attention), float(block.mlp)] for block in reduced.schedule]
            return float(reduced.cost.macs(reduced.schedule)), counts, 1
        seen: list[Tensor] = []
        wanted = min(ADAPTIVE_IMAGES, len(self._data))
        with torch.inference_mode():
            for start in range(0, wanted, self._spec.batch_size):
                images = self._data.batch(start, min(wanted, start + self._spec.batch_size), self._device)[0]
                seen.append(self._contenders.counts(images).cpu())
        every = torch.cat(seen)
        macs = [reduced.cost.macs([BlockTokens(*block) for block in image]) for image in every.tolist()]
        outcome.details["macs_of"] = f"the mean of {wanted} images, which keep different numbers of tokens"
        return sum(macs) / wanted, every.double().mean(dim=0).round(decimals=2).tolist(), wanted

    def _throughput(self, outcome: Outcome, say: Callable[[str], None]) -> None:
        timing = Timing(**cast("dict[str, Any]", self._spec.timing))
        say("compiling the baseline" if timing.compiled else "timing")
        contenders = self._contenders.all(compile_too=timing.compiled)
        dtype = self._contenders.dtype
        found = sweep(
            contenders,
            lambda batch: filled(self._data, batch, self._device),
            timing,
            TOLERANCES[dtype],
            meter=energy.meter(self._device),
            opaque=frozenset({COMPILED}),
            say=say,
        )
        outcome.warnings += [*self._contenders.warnings, *found.warnings]
        outcome.values += _values(found)
        points: list[JsonValue] = [point.to_json() for point in found.points]
        outcome.details["throughput"] = points
        outcome.details["path"] = _path(self._device, dtype)


def _ranks(scores: Tensor, labels: Tensor) -> NDArray[np.int64]:
    """How many classes each image's own is behind, `(B,)`: those that score more, and equal ones that come first."""
    own = scores.gather(1, labels[:, None])
    before = torch.arange(scores.shape[1], device=scores.device) < labels[:, None]
    ranks: NDArray[np.int64] = ((scores > own) | ((scores == own) & before)).sum(dim=1).cpu().numpy()
    return ranks


def _path(device: torch.device, dtype: torch.dtype) -> JsonValue:
    """What the timed calls ran with; the attention kernels stand with each batch size."""
    return {
        "precision": str(dtype).removeprefix("torch."),
        "tf32_matmul": device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32,
        "tf32_convolution": device.type == "cuda" and torch.backends.cudnn.allow_tf32,
        "audit_tolerance": dataclasses.asdict(TOLERANCES[dtype]),
    }


def _values(found: Sweep) -> list[Value]:
    """Latency at batch 1; images per second at the method's best batch, and its ratio to the baselines there."""
    values = [value for point in found.points if point.timed.batch == 1 for value in _latencies(point.timed)]
    best = found.best(METHOD)
    timed = best.timed
    n = len(timed.seconds[METHOD])
    rate = timed.images_per_second(METHOD)
    values += [
        Value(name="images_per_second", value=rate, n=n, interval=timed.spread(METHOD)),
        Value(name="best_batch", value=float(timed.batch), n=len(found.points)),
    ]
    bases = {f"speedup_{base}": base for base in (EAGER, FUSED, COMPILED) if base in timed.seconds}
    if bases:
        bases["speedup_best"] = max((base for base in bases.values() if base != EAGER), key=timed.images_per_second)
    for name, base in bases.items():
        ratio, interval = timed.speedup(METHOD, base)
        values.append(Value(name=name, value=ratio, n=n, interval=interval))
    if METHOD in best.memory:
        values.append(Value(name="call_memory_bytes", value=float(best.memory[METHOD]), n=timed.batch))
    if METHOD in best.joules:
        values.append(Value(name="joules_per_image", value=best.joules[METHOD], n=timed.batch))
    return values


def _latencies(timed: Timed) -> list[Value]:
    n = len(timed.seconds[METHOD])
    return [Value(name=f"latency_p{q}_ms", value=timed.quantile_ms(METHOD, q / 100), n=n) for q in (50, 90, 99)]


CLASSIFICATION = Task(
    name="classification",
    title="Classification with token reduction",
    measures=("accuracy", "cost", "throughput"),
    usual=("accuracy", "cost", "throughput"),
    open=cast("Callable[[RunSpec, Context], ClassificationSession]", ClassificationSession),
)
