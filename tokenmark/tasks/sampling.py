"""Sampling: how fast a generator of official size makes images, with drawn weights and no data.

Every timed call draws noise on the device, image by image, runs all steps of a preset and decodes. Speed does not
depend on what the weights hold.
"""

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from tokenmark import build, registry
from tokenmark.contracts import Generator, GeneratorMethod
from tokenmark.measures import energy
from tokenmark.measures.audit import Contender, Tolerance
from tokenmark.measures.base import Measure
from tokenmark.measures.sweep import Sweep, sweep
from tokenmark.measures.throughput import Timing
from tokenmark.records import Value
from tokenmark.spec import RunSpec
from tokenmark.tasks.asked import noise_of
from tokenmark.tasks.base import Context, Outcome, Task
from tokenmark.tasks.sampler import drawn_prompts, macs_of

SAMPLE, UNREDUCED, COMPILED = "sample", "unreduced", "compiled"
SEEDS = 2**20
"""So many different noises a timed call may be given."""
TOLERANCE = Tolerance(1e-4, 5e-2)
"""Of images from the same noise, by a fresh copy on the same kernels; with drawn weights all are nearly alike."""


class SamplingSession:
    """A generator under the clock."""

    total = 0

    def __init__(self, spec: RunSpec, context: Context) -> None:
        self._spec, self._device = spec, context.device
        self.measures: dict[str, Measure] = {}
        method = registry.get_as(GeneratorMethod, spec.method)
        torch.manual_seed(spec.seed)
        self._generator = build.drawn_generator(spec.method, spec.variant or "", context.device)
        self._preset = build.preset_of(method, str(spec.settings["preset"]), spec.variant or "")
        self._reduced = build.in_sampler(self._generator, spec.settings)
        self._text = method.text

    def step(self, start: int, stop: int) -> None:
        """There is nothing to do image by image."""

    def finish(self, say: Callable[[str], None]) -> Outcome:
        """Time every batch size that fits into memory, then count."""
        timing = Timing(**cast("dict[str, Any]", self._spec.timing))
        outcome = Outcome([], details={"weights": f"random, drawn from seed {self._spec.seed}"})
        contenders = {SAMPLE: Contender(self._call(self._reduced or self._generator), self._fresh)}
        if self._reduced is not None:
            contenders[UNREDUCED] = Contender(self._call(self._generator), self._fresh_unreduced)
        if timing.compiled:
            say("compiling")
            contenders |= self._compiled(outcome.warnings)
        found = sweep(
            contenders,
            lambda batch: torch.rand(batch, 1, generator=noise_of(self._spec.seed, batch)).to(self._device),
            timing,
            TOLERANCE,
            meter=energy.meter(self._device),
            opaque=frozenset({COMPILED}),
            say=say,
        )
        outcome.warnings += found.warnings
        outcome.values = _values(found)
        outcome.details["throughput"] = [point.to_json() for point in found.points]
        outcome.details["precision"] = f"{self._spec.precision}, by autocast where it is not float32"
        say("counting")
        counted = {
            "steps": self._generator.steps(self._preset.settings),
            "macs": macs_of(self._spec.method, self._spec.variant or "", self._preset, self._spec.settings),
            "parameters": self._generator.parameters_total,
        }
        outcome.values += [Value(name=name, value=float(number), n=1) for name, number in counted.items()]
        return outcome

    def _call(self, generator: Generator) -> Callable[[Tensor], Tensor]:
        """Images as rows `(B, pixels)` from numbers `(B, 1)` in [0, 1), of which each names a noise and a class."""
        half = self._spec.precision == "bfloat16"

        def sample(given: Tensor) -> Tensor:
            seeds = (given[:, 0].double() * SEEDS).long().cpu()
            noise = [noise_of(self._spec.seed, seed, self._device) for seed in seeds.tolist()]
            prompts = drawn_prompts(self._text, len(noise), self._device)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=half):
                return generator.sample(seeds % 10, noise, self._preset.settings, prompts).flatten(1)

        return sample

    def _copied(self) -> Generator:
        """A copy with modules of its own on the same weights, which remembers nothing."""
        network = cast("nn.Module", self._generator)
        weights = [*network.parameters(), *network.buffers()]
        return cast("Generator", copy.deepcopy(network, {id(tensor): tensor for tensor in weights}))

    def _fresh(self, given: Tensor) -> Tensor:
        anew = self._copied()
        return self._call(build.in_sampler(anew, self._spec.settings) or anew)(given)

    def _fresh_unreduced(self, given: Tensor) -> Tensor:
        return self._call(self._copied())(given)

    def _compiled(self, warnings: list[str]) -> dict[str, Contender]:
        """The generator with its blocks compiled, if that succeeds; that it does not is a warning."""
        fast = cast("Any", self._copied())
        call = self._call(fast)
        try:
            if not fast.compile_blocks():
                raise RuntimeError("it has no blocks in a row")
            with torch.inference_mode():
                call(torch.zeros(1, 1, device=self._device))
        except Exception as error:  # noqa: BLE001  the compiler may fail in any way
            reason = str(error).partition("\n")[0]
            warnings.append(f"torch.compile failed: {type(error).__name__}: {reason[:120]}")
            return {}
        # Its last digits are others, and a token that falls otherwise changes the whole image: no image can be asked
        # to be another's. What it gives must not change between calls.
        return {COMPILED: Contender(call, COMPILED)}


def _values(found: Sweep) -> list[Value]:
    """Latency at batch 1; images per second at the best batch, compiled too; memory, energy."""
    values = []
    for timed in (point.timed for point in found.points if point.timed.batch == 1):
        n = len(timed.seconds[SAMPLE])
        values += [Value(name=f"latency_p{q}_ms", value=timed.quantile_ms(SAMPLE, q / 100), n=n) for q in (50, 90, 99)]
    best = found.best(SAMPLE)
    timed = best.timed
    n = len(timed.seconds[SAMPLE])
    rate, spread = timed.images_per_second(SAMPLE), timed.spread(SAMPLE)
    values += [
        Value(name="images_per_second", value=rate, n=n, interval=spread),
        Value(name="best_batch", value=float(timed.batch), n=len(found.points)),
    ]
    if UNREDUCED in timed.seconds:
        ratio, interval = timed.speedup(SAMPLE, UNREDUCED)
        values.append(Value(name="speedup_unreduced", value=ratio, n=n, interval=interval))
    if COMPILED in timed.seconds:
        rate, spread = timed.images_per_second(COMPILED), timed.spread(COMPILED)
        ratio, interval = timed.speedup(COMPILED, SAMPLE)
        values += [
            Value(name="compiled_images_per_second", value=rate, n=n, interval=spread),
            Value(name="speedup_compiled", value=ratio, n=n, interval=interval),
        ]
    if SAMPLE in best.memory:
        values.append(Value(name="call_memory_bytes", value=float(best.memory[SAMPLE]), n=timed.batch))
    if SAMPLE in best.joules:
        values.append(Value(name="joules_per_image", value=best.joules[SAMPLE], n=timed.batch))
    return values


SAMPLING = Task(
    name="sampling",
    title="Speed of generators",
    measures=("throughput",),
    usual=("throughput",),
    open=cast("Callable[[RunSpec, Context], SamplingSession]", SamplingSession),
)
