"""All contenders over rising batch sizes, each audited and timed, until memory runs out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from pydantic import JsonValue
from torch import Tensor

from tokenmark import memory
from tokenmark.errors import TokenmarkError
from tokenmark.measures import attention, audit, energy, throughput
from tokenmark.measures.audit import Contender, Tolerance
from tokenmark.measures.throughput import Timed, Timing


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured at one batch size, by contender."""

    timed: Timed
    differences: dict[str, float]
    """The audit's: how far the last timed call was from the checked one."""
    attention: dict[str, dict[str, int]]
    memory: dict[str, int]
    """Bytes at the highest point of a call, beyond weights and images; empty on a processor."""
    joules: dict[str, float]
    """Per image; empty where there is no meter."""

    def to_json(self) -> JsonValue:
        """The point as it stands in a record."""
        timed = self.timed
        facts: dict[str, JsonValue] = {
            "batch": timed.batch,
            "rounds": min(len(times) for times in timed.seconds.values()),
            "steady": timed.steady,
            "images_per_second": {name: round(timed.images_per_second(name), 2) for name in timed.seconds},
            "p50_ms": {name: round(timed.quantile_ms(name, 0.5), 4) for name in timed.seconds},
            "p90_ms": {name: round(timed.quantile_ms(name, 0.9), 4) for name in timed.seconds},
            "p99_ms": {name: round(timed.quantile_ms(name, 0.99), 4) for name in timed.seconds},
            "attention": {name: dict(kernels) for name, kernels in self.attention.items()},
        }
        if self.differences:
            facts["audit_difference"] = {name: float(f"{share:.2g}") for name, share in self.differences.items()}
        if self.memory:
            facts["call_memory_bytes"] = dict(self.memory)
        if self.joules:
            facts["joules_per_image"] = {name: float(f"{joules:.4g}") for name, joules in self.joules.items()}
        return facts


@dataclass(slots=True)
class Sweep:
    """The batch sizes that fitted, from small to large, and what the reader should know."""

    points: list[Point] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def best(self, name: str) -> Point:
        """The point at which a contender is fastest."""
        return max(self.points, key=lambda point: point.timed.images_per_second(name))


def sweep(
    contenders: Mapping[str, Contender],
    images_of: Callable[[int], Tensor],
    timing: Timing,
    tolerance: Tolerance,
    meter: energy.Meter | None = None,
    opaque: frozenset[str] = frozenset(),
    say: Callable[[str], object] = str,
) -> Sweep:
    """Measure every batch size; `images_of` makes a batch on the device, and `opaque` contenders are compiled.

    The first size for which memory does not suffice ends the sweep: all contenders are compared at every size.

    Raises:
        AuditError: a contender does not give what it must give.
        TokenmarkError: memory does not suffice for the smallest batch.
    """
    found = Sweep()
    for batch in sorted(set(timing.batches)):
        say(f"timing, batch {batch}")
        try:
            point = _point(contenders, images_of(batch), timing, tolerance, meter, opaque)
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error):
                raise
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
        else:
            found.points.append(point)
            if not point.timed.steady:
                found.warnings.append(f"batch {batch}: the warm-up ended before times were steady")
            continue
        # outside of `except`: the error's frames hold what filled the memory
        memory.release()
        if not found.points:
            raise TokenmarkError(f"batch {batch} does not fit into memory: give smaller batches ({reason[:120]})")
        found.warnings.append(
            f"batch {batch} does not fit into memory: the sweep ends at batch {found.points[-1].timed.batch}"
        )
        break
    return found


def _point(
    contenders: Mapping[str, Contender],
    images: Tensor,
    timing: Timing,
    tolerance: Tolerance,
    meter: energy.Meter | None,
    opaque: frozenset[str],
) -> Point:
    calls = {name: contender.call for name, contender in contenders.items()}
    with torch.inference_mode():
        before = audit.check(contenders, images, tolerance)
        kernels = {name: attention.kernels(call, images) for name, call in calls.items() if name not in opaque}
        timed = throughput.measure(calls, images, timing)
        differences = audit.check_timed(contenders, images, timed.outputs, before, tolerance)
        peaks = {name: memory.of_call(images.device, lambda call=call: call(images)) for name, call in calls.items()}  # type: ignore[misc]
        joules = {
            name: meter.joules_per_call(call, images, timing.min_seconds) / len(images)
            for name, call in (calls.items() if meter else ())
            if meter is not None
        }
    known = {name: count for name, count in peaks.items() if count is not None}
    return Point(timed, differences, kernels, known, joules)
