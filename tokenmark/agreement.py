"""When two measurements of one thing agree: by their errors, by their kind where no error is known."""

import fnmatch
from typing import Literal

from tokenmark.records import Value

Kind = Literal["timing", "follows", "measured"]

TIMINGS = (
    *("*latency_p*_ms", "*images_per_second", "speedup_*"),
    *("best_batch", "call_memory_bytes", "joules_per_image"),
)
"""Values of a machine on a day: never equal, and on another machine without meaning for this one."""
FOLLOWS = ("*_mcnemar_p", "*_infinite", "codebook_perplexity")
"""Values without an error of their own that follow from others, which are compared."""
COUNT_TOLERANCE = 1e-6
"""Relative, for what arithmetic gives of one network, the same on every machine: MACs, parameters, sizes."""
OTHER_TOLERANCE = 1e-2
"""Relative, for what is seen on many images and has no error: codebooks' statistics, means of token counts."""
TIMING_FACTOR = 4.0
"""Between timings on one device: what a machine under other load gives, and not what another machine does."""


def kind_of(name: str) -> Kind:
    """What kind of value goes by this name."""
    kinds: dict[Kind, tuple[str, ...]] = {"timing": TIMINGS, "follows": FOLLOWS}
    for kind, patterns in kinds.items():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            return kind
    return "measured"


def allowed(one: Value, other: Value) -> float | None:
    """How far two values may be apart: their 95 % errors together; None where no error is known."""
    halves = [half_width(value) for value in (one, other)]
    if all(half is None for half in halves):
        return None
    total: float = sum((half or 0.0) ** 2 for half in halves) ** 0.5
    return total


def half_width(value: Value) -> float | None:
    """Half of a value's 95 % interval; None where no error is known."""
    bounds = value.bounds
    return None if bounds is None else (bounds[1] - bounds[0]) / 2


def tolerance(one: Value, other: Value) -> float:
    """How far two measurements of one experiment may be apart; what follows from others may be anywhere."""
    if kind_of(one.name) == "follows":
        return float("inf")
    errors, largest = allowed(one, other), max(abs(one.value), abs(other.value))
    if errors is not None:
        return errors
    return largest * (COUNT_TOLERANCE if one.n == other.n == 1 else OTHER_TOLERANCE)


def contradiction(one: Value, other: Value, *, same_device: bool) -> str | None:
    """Why two values of one experiment cannot both be true; None where they can.

    Timings contradict each other on one device only, where they are several times apart.
    """
    apart = abs(one.value - other.value)
    if kind_of(one.name) != "timing":
        most = tolerance(one, other)
        if apart <= most:
            return None
        return (
            f"{one.name} is {one.value:.6g} here and {other.value:.6g} there, {apart:.2g} apart where {most:.2g} may be"
        )
    if not same_device or one.name == "best_batch":
        return None
    ratio = max(one.value, other.value) / max(min(one.value, other.value), 1e-12)
    if ratio <= TIMING_FACTOR:
        return None
    return f"{one.name} is {one.value:.6g} here and {other.value:.6g} there, on one device: {ratio:.1f} times"
