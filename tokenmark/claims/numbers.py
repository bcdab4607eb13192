"""The measured number that a claim asks for: of one record, or of a method's and its baseline's together."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tokenmark.claims.measured import Candidate, Measured
from tokenmark.claims.quantities import SCALES
from tokenmark.claims.schema import RATIO_UNITS, Claim, Subject
from tokenmark.records import Record

SPEEDUPS = {"eager": ("speedup_eager",), "fused": ("speedup_fused",), "compiled": ("speedup_compiled",)}
"""The recorded ratio to each unreduced baseline; eager attention where a source does not say which it had."""


@dataclass(frozen=True, slots=True)
class Number:
    """A measured number in a claim's unit."""

    value: float
    candidate: Candidate
    """Of the method's own record."""
    records: tuple[Record, ...]
    how: str = ""
    """How it came about, where a source leaves more than one reading: ` (with the method's own MACs)`."""
    error: float | None = None
    """Its standard error."""
    interval: tuple[float, float] | None = None
    label: str = ""
    """What a reader must know beside the verdict: that a speed was measured on another device."""


def readings(claim: Claim, measured: Measured) -> list[Number]:
    """The numbers of the records that are most like the claim; none: nothing measured it.

    A quantity can be read in several ways where papers do not say which they counted: MACs with or without those of
    the method itself. The usual reading comes first.
    """
    found = [each for value in claim.about_quantity.values for each in _reading(claim, measured, value)]
    fewest = min((len(each.candidate.differing) for each in found), default=0)
    return [each for each in found if len(each.candidate.differing) == fewest]


def _reading(claim: Claim, measured: Measured, value: str) -> Iterable[Number]:
    """The claim's number by one value of records."""
    match claim.kind:
        case "absolute":
            found = _first(measured.candidates(claim, claim.subject, value))
            if found is not None:
                yield _absolute(claim, found, value)
        case "difference" | "ratio":
            yield from _against(claim, measured, value)
        case "iso-accuracy":
            yield from _iso_accuracy(claim, measured, value)


def _absolute(claim: Claim, found: Candidate, name: str) -> Number:
    scale = SCALES[claim.unit]
    held = found.value
    interval = None if held.interval is None else (held.interval[0] / scale, held.interval[1] / scale)
    error = None if held.se is None else held.se / scale
    return Number(held.value / scale, found, (found.record,), _how(claim, name), error, interval)


def _how(claim: Claim, name: str) -> str:
    several = claim.quantity == "macs" and claim.subject.model is not None
    return {"macs": " by the formula", "macs_total": " with the method's own"}.get(name, "") if several else ""


def _against(claim: Claim, measured: Measured, value: str) -> Iterable[Number]:
    """A difference from the baseline, or a ratio to it."""
    if claim.baseline is None:
        return
    own = _first(measured.candidates(claim, claim.subject, value))
    recorded = _recorded(claim, measured, value)
    if recorded is not None:
        yield recorded
        return
    base = _first(measured.candidates(claim, claim.baseline, value))
    if own is None or base is None or base.value.value == 0:
        return
    records = (own.record, base.record)
    if claim.kind == "difference":
        yield Number((own.value.value - base.value.value) / SCALES[claim.unit], own, records, _how(claim, value))
    else:
        ratio = own.value.value / base.value.value
        yield Number(RATIO_UNITS[claim.unit](ratio), own, records, _how(claim, value))


def _recorded(claim: Claim, measured: Measured, value: str) -> Number | None:
    """What a method's record itself says of the unreduced model: it was measured in the same run, and paired."""
    baseline = claim.baseline or Subject()
    if baseline.method != "none" or claim.about_quantity.family == "structure":
        return None
    names = (
        (f"{value}_difference",)
        if claim.kind == "difference"
        else SPEEDUPS.get(claim.attention or "", ("speedup_eager",))
    )
    if claim.kind == "ratio" and claim.quantity != "images-per-second":
        return None
    found = _first([each for name in names for each in measured.candidates(claim, claim.subject, name)])
    if found is None:
        return None
    if claim.kind == "difference":
        return _absolute(claim, found, value)
    read = RATIO_UNITS[claim.unit]
    interval = None if found.value.interval is None else _sorted(*map(read, found.value.interval))
    name = found.value.name.removeprefix("speedup_")
    how = f" over the unreduced model with {name} attention" if name != "compiled" else " over the compiled model"
    return Number(read(found.value.value), found, (found.record,), how, None, interval, _device(claim, found.record))


def _device(claim: Claim, record: Record) -> str:
    """That a ratio was measured elsewhere."""
    if claim.device and claim.device.lower() in record.spec.device.lower():
        return ""
    return f" [another device: {record.spec.device}; the source's is {claim.device or 'unstated'}]"


def _iso_accuracy(claim: Claim, measured: Measured, value: str) -> Iterable[Number]:
    """The cheapest setting that is as accurate as the baseline, within their errors, against the baseline's cost."""
    if claim.baseline is None:
        return
    base = _first(measured.candidates(claim, claim.baseline, value))
    accuracy = _first(measured.candidates(claim, claim.baseline, "top1"))
    if base is None or accuracy is None:
        return
    enough = (accuracy.value.bounds or (accuracy.value.value,))[0]
    as_good = [
        each
        for each in measured.any_setting(claim, claim.subject, value)
        if (top1 := each.record.value("top1")) is not None and top1.value >= enough
    ]
    if as_good:
        least = min(as_good, key=lambda each: each.value.value)
        ratio = least.value.value / base.value.value
        how = f" at {least.record.spec.title}"
        yield Number(RATIO_UNITS[claim.unit](ratio), least, (least.record, base.record), how)


def _first(found: list[Candidate]) -> Candidate | None:
    return found[0] if found and math.isfinite(found[0].value.value) else None


def _sorted(one: float, other: float) -> tuple[float, float]:
    return (one, other) if one <= other else (other, one)
