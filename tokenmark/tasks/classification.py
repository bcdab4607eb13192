"""Classification: accuracy, cost and speed of a classifier whose tokens are reduced, beside the classifier itself."""

import copy
import functools
from collections.abc import Callable
from typing import Any, cast

import torch
from pydantic import JsonValue
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tokenmark import backbones, build, protocols
from tokenmark.contracts import BlockTokens
from tokenmark.data import catalog
from tokenmark.measures import throughput
from tokenmark.measures.accuracy import Accuracy
from tokenmark.measures.base import Measure
from tokenmark.measures.cost import VitSizes, counted_macs, vit_macs
from tokenmark.measures.throughput import Timed, Timing
from tokenmark.records import Value
from tokenmark.spec import RunSpec
from tokenmark.tasks.base import Context, Outcome, Task, computed, finite

METHOD, EAGER, FUSED, COMPILED = "method", "eager", "fused", "compiled"
COUNTER_TOLERANCE = 0.01
"""The formula must agree with the counter within this share on the unreduced model."""


class ClassificationSession:
    """A reduced classifier under measurement."""

    def __init__(self, spec: RunSpec, context: Context) -> None:
        self._spec, self._device = spec, context.device
        protocol = protocols.get(spec.protocol)
        self._data = catalog.load(*protocol.split("classification"), context.data)
        name = spec.variant or ""
        self._backbone = backbones.get(name)
        self._model = backbones.load(name, context.device)
        self._reduced = build.reduced(spec.method, self._model, spec.settings)
        self._base_call = backbones.Normalised(self._backbone, self._model).to(context.device).eval()
        wrapped = backbones.Normalised(self._backbone, cast("nn.Module", self._reduced))
        self._call = wrapped.to(context.device).eval()
        self.measures: dict[str, Measure] = (
            {"accuracy": Accuracy("top1", paired=True)} if "accuracy" in spec.measures else {}
        )
        self.total = spec.samples if self.measures else 0

    def step(self, start: int, stop: int) -> None:
        """Classify these images with both models, on the path that is timed later."""
        with torch.inference_mode():
            images, labels = self._data.batch(start, stop, self._device)
            scores = finite(self._call(images), self._spec.title, "class scores")
            right = (scores.argmax(dim=1) == labels).cpu().numpy()
            base = (self._base_call(images).argmax(dim=1) == labels).cpu().numpy()
        cast("Accuracy", self.measures["accuracy"]).update(right, base)

    def finish(self, say: Callable[[str], None]) -> Outcome:
        """Accuracy, then cost, then speed, as far as they are asked for."""
        outcome = Outcome(computed(self.measures.values()), warnings=self._data.warnings)
        if "cost" in self._spec.measures:
            say("cost")
            self._cost(outcome)
        if "throughput" in self._spec.measures:
            self._throughput(outcome, say)
        return outcome

    def _cost(self, outcome: Outcome) -> None:
        sizes = VitSizes.of(self._model)
        full = BlockTokens(sizes.patches + sizes.prefix, sizes.patches + sizes.prefix)
        base = vit_macs(sizes, [full] * sizes.blocks)
        image = self._data.batch(0, 1, self._device)[0]
        with sdpa_kernel(SDPBackend.MATH):  # fused kernels are invisible to the counter on some devices
            counted, counted_base = counted_macs(self._call, image), counted_macs(self._base_call, image)
        if abs(counted_base - base) > COUNTER_TOLERANCE * base:
            outcome.warnings.append(f"formula gives {base} MACs for the unreduced model, the counter {counted_base}")
        macs = vit_macs(sizes, self._reduced.schedule)
        parameters = sum(parameter.numel() for parameter in self._model.parameters())
        numbers = {"macs": macs, "macs_counted": counted, "macs_ratio": macs / base, "parameters": parameters}
        outcome.values += [Value(name=name, value=float(number), n=1) for name, number in numbers.items()]
        last = self._reduced.schedule[-1].mlp
        outcome.values.append(Value(name="tokens_left", value=float(last), n=1))
        outcome.details["schedule"] = [[block.attention, block.mlp] for block in self._reduced.schedule]

    def _contenders(self, timing: Timing, outcome: Outcome) -> dict[str, Callable[[Tensor], Tensor]]:
        """The method and the unreduced baselines: eager attention, fused attention and, where it can be, compiled."""
        eager = copy.deepcopy(self._model)
        for module in eager.modules():
            if hasattr(module, "fused_attn"):
                cast("Any", module).fused_attn = False
        contenders: dict[str, Callable[[Tensor], Tensor]] = {
            METHOD: self._call,
            EAGER: backbones.Normalised(self._backbone, eager).to(self._device).eval(),
            FUSED: self._base_call,
        }
        if timing.compiled:
            try:
                contenders[COMPILED] = compiled(self._spec.variant or "", self._device)
            except Exception as error:  # noqa: BLE001  a compiler fails in many ways, and none may stop the run
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                outcome.warnings.append(f"no compiled baseline: {reason[:160]}")
        return contenders

    def _throughput(self, outcome: Outcome, say: Callable[[str], None]) -> None:
        timing = Timing(**cast("dict[str, Any]", self._spec.timing))
        say("compiling the baseline" if timing.compiled else "timing")
        contenders = self._contenders(timing, outcome)
        sweep: list[JsonValue] = []
        best: dict[str, Timed] = {}
        for batch in timing.batches:
            say(f"timing, batch {batch}")
            images = self._data.batch(0, batch, self._device)[0]
            timed = throughput.measure(contenders, images, timing)
            if not timed.steady:
                outcome.warnings.append(f"batch {batch}: the warm-up ended before times were steady")
            if batch == 1:
                outcome.values += _latencies(timed)
            sweep.append(_summary(timed))
            for name in contenders:
                if name not in best or timed.images_per_second(name) > best[name].images_per_second(name):
                    best[name] = timed
        outcome.values += _rates(best, sweep)
        outcome.details["throughput"] = sweep


@functools.cache
def compiled(model: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The unreduced classifier through torch.compile, tried once; one per process, for compiling takes a while.

    Raises:
        Exception: whatever torch says where it cannot compile (no C++ compiler on a processor, say).
    """
    backbone = backbones.get(model)
    call = backbones.Normalised(backbone, backbones.load(model, device)).to(device).eval()
    fast = cast("Callable[[Tensor], Tensor]", torch.compile(call, dynamic=False))
    with torch.inference_mode():
        fast(torch.zeros(1, 3, backbone.sizes["img_size"], backbone.sizes["img_size"], device=device))
    return fast


def _latencies(timed: Timed) -> list[Value]:
    n = len(timed.seconds[METHOD])
    return [Value(name=f"latency_p{q}_ms", value=timed.quantile_ms(METHOD, q / 100), n=n) for q in (50, 90, 99)]


def _rates(best: dict[str, Timed], sweep: list[JsonValue]) -> list[Value]:
    """Images per second at the method's best batch, and its ratio to both baselines there."""
    timed = best[METHOD]
    n = len(timed.seconds[METHOD])
    rate = timed.images_per_second(METHOD)
    values = [
        Value(name="images_per_second", value=rate, n=n, interval=timed.spread(METHOD)),
        Value(name="best_batch", value=float(timed.batch), n=len(sweep)),
    ]
    bases = {f"speedup_{base}": base for base in (EAGER, FUSED, COMPILED) if base in timed.seconds}
    fastest = max((base for base in bases.values() if base != EAGER), key=timed.images_per_second)
    for name, base in {**bases, "speedup_best": fastest}.items():
        ratio, interval = timed.speedup(METHOD, base)
        values.append(Value(name=name, value=ratio, n=n, interval=interval))
    return values


def _summary(timed: Timed) -> JsonValue:
    return {
        "batch": timed.batch,
        "rounds": len(timed.seconds[METHOD]),
        "steady": timed.steady,
        "images_per_second": {name: round(timed.images_per_second(name), 2) for name in timed.seconds},
        "p50_ms": {name: round(timed.quantile_ms(name, 0.5), 4) for name in timed.seconds},
        "p99_ms": {name: round(timed.quantile_ms(name, 0.99), 4) for name in timed.seconds},
    }


CLASSIFICATION = Task(
    name="classification",
    title="Classification with token reduction",
    measures=("accuracy", "cost", "throughput"),
    open=cast("Callable[[RunSpec, Context], ClassificationSession]", ClassificationSession),
)
