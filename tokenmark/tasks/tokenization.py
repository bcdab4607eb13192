"""Tokenization: how fast a tokenizer of official size encodes and decodes, with drawn weights and no data.

Speed does not depend on what the weights hold, except where a method's code is as long as an image needs: there it
says nothing of trained weights, and a warning says so.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from tokenmark import build, memory
from tokenmark.errors import AuditError, TokenmarkError
from tokenmark.measures import attention, energy, throughput
from tokenmark.measures.base import Measure
from tokenmark.measures.sweep import Point
from tokenmark.measures.throughput import Timing
from tokenmark.records import Value
from tokenmark.spec import RunSpec
from tokenmark.tasks.base import Context, Outcome, Task
from tokenmark.tasks.coding import BOTH, DECODE, ENCODE, Coder
from tokenmark.tasks.inputs import Noise, filled

COMPILED = "both, compiled"
SAME_CODES = 0.98
"""The share of codes that a second encoding of the same images, by a fresh copy, must give again."""
MOST_DIFFERENT = 0.05
"""How far, in shares of their length, the images of a timed decoding may be from those of a fresh copy."""


class TokenizationSession:
    """A tokenizer under the clock."""

    def __init__(self, spec: RunSpec, context: Context) -> None:
        self._spec, self._device = spec, context.device
        torch.manual_seed(spec.seed)
        self._tokenizer = build.drawn_tokenizer(spec.method, spec.variant or "", context.device)
        info = self._tokenizer.info
        self._info = info
        self._data = Noise((3, info.image_size, info.image_size), spec.seed)
        self.measures: dict[str, Measure] = {}
        self.total = 0

    def step(self, start: int, stop: int) -> None:
        """There is nothing to do image by image."""

    def finish(self, say: Callable[[str], None]) -> Outcome:
        """Time every batch size that fits into memory."""
        timing = Timing(**cast("dict[str, Any]", self._spec.timing))
        outcome = Outcome([], details={"weights": f"random, drawn from seed {self._spec.seed}"})
        points: list[Point] = []
        for batch in sorted(set(timing.batches)):
            say(f"timing, batch {batch}")
            try:
                points.append(self._point(batch, timing, outcome.warnings))
            except (RuntimeError, MemoryError) as error:
                if not memory.ran_out(error):
                    raise
                reason = str(error).strip().partition("\n")[0] or type(error).__name__
            else:
                continue
            memory.release()  # outside of `except`: the error's frames hold what filled the memory
            if not points:
                raise TokenmarkError(f"batch {batch} does not fit into memory: give smaller batches ({reason[:120]})")
            outcome.warnings.append(f"batch {batch} does not fit into memory: the sweep ends before it")
            break
        outcome.values = _values(points, self._info.parameters)
        outcome.details["throughput"] = [point.to_json() for point in points]
        outcome.details["parameters"] = self._info.parameters
        outcome.details["precision"] = f"{self._spec.precision}, by autocast where it is not float32"
        return outcome

    def _point(self, batch: int, timing: Timing, warnings: list[str]) -> Point:
        coder = Coder(self._tokenizer, self._spec, self._device)
        images = filled(self._data, batch, self._device)
        calls = coder.calls(images)
        _audit(coder, Coder(copy.deepcopy(self._tokenizer), self._spec, self._device), images)
        if timing.compiled:
            calls |= _compiled(coder, images, warnings)
        timed = throughput.measure(calls, images, timing)
        if not timed.steady:
            warnings.append(f"batch {batch}: the warm-up ended before times were steady")
        kernels = {name: attention.kernels(call, images) for name, call in calls.items() if name != COMPILED}
        peaks = {name: memory.of_call(self._device, lambda call=call: call(images)) for name, call in calls.items()}  # type: ignore[misc]
        meter = energy.meter(self._device)
        joules = {} if meter is None else {BOTH: meter.joules_per_call(calls[BOTH], images, timing.min_seconds) / batch}
        known = {name: count for name, count in peaks.items() if count is not None}
        return Point(timed, {}, kernels, known, joules)


def _audit(coder: Coder, fresh: Coder, images: Tensor) -> None:
    """The calls that are timed must give, on images and on their negatives, what a fresh copy gives.

    Raises:
        AuditError: they do not: a call skips work, or remembers an answer.
    """
    with torch.inference_mode():
        for given in (images, 1 - images):
            tokens, expected = coder.encode(given), fresh.encode(given.clone())
            if tokens.codes is not None and expected.codes is not None:
                same = float((tokens.codes == expected.codes).double().mean())
                if same < SAME_CODES:
                    raise AuditError(f"two encodings of the same images share {same:.1%} of their codes only")
            one, other = coder.decode(expected), fresh.decode(expected)
            off = float((one - other).double().norm() / other.double().norm().clamp_min(1e-9))
            if not off <= MOST_DIFFERENT:
                raise AuditError(f"two decodings of the same tokens differ by {off:.2g} of their length")


def _compiled(coder: Coder, images: Tensor, warnings: list[str]) -> Mapping[str, Callable[[Tensor], Tensor]]:
    """Encoding and decoding through torch.compile, if that succeeds; that it does not is a warning."""
    both = torch.compile(lambda given: coder.decode(coder.encode(given)), dynamic=False)
    try:
        with torch.inference_mode():
            both(images)
    except Exception as error:  # noqa: BLE001  the compiler may fail in any way
        warnings.append(f"torch.compile failed: {type(error).__name__}: {str(error).partition(chr(10))[0][:120]}")
        return {}
    return {COMPILED: cast("Callable[[Tensor], Tensor]", both)}


def _values(points: list[Point], parameters: int) -> list[Value]:
    """Images per second at the batch where both together are fastest, latency at batch 1, memory."""
    values = []
    for timed in (point.timed for point in points if point.timed.batch == 1):
        for name in (ENCODE, DECODE, BOTH):
            n = len(timed.seconds[name])
            values += [
                Value(name=f"{name}_latency_p{q}_ms", value=timed.quantile_ms(name, q / 100), n=n) for q in (50, 90, 99)
            ]
    best = max(points, key=lambda point: point.timed.images_per_second(BOTH))
    for name in (name for name in (ENCODE, DECODE, BOTH, COMPILED) if name in best.timed.seconds):
        n = len(best.timed.seconds[name])
        rate, spread = best.timed.images_per_second(name), best.timed.spread(name)
        label = name.replace(", ", "_")
        values.append(Value(name=f"{label}_images_per_second", value=rate, n=n, interval=spread))
    values.append(Value(name="best_batch", value=float(best.timed.batch), n=len(points)))
    if BOTH in best.memory:
        values.append(Value(name="call_memory_bytes", value=float(best.memory[BOTH]), n=best.timed.batch))
    if BOTH in best.joules:
        values.append(Value(name="joules_per_image", value=best.joules[BOTH], n=best.timed.batch))
    values.append(Value(name="parameters", value=float(parameters), n=1))
    return values


TOKENIZATION = Task(
    name="tokenization",
    title="Speed of tokenizers",
    measures=("throughput",),
    usual=("throughput",),
    open=cast("Callable[[RunSpec, Context], TokenizationSession]", TokenizationSession),
)
