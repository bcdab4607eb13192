"""The verdict on a claim: whether the measured number is the printed one, within what printing and measuring leave.

A measured number reproduces a printed one if they are no further apart than half the last printed digit and what two
correct implementations of the measure may differ by, or than 1.96 standard errors where the measure draws samples
(docs/verify.md).
"""

from collections.abc import Iterable, Sequence

from tokenmark.claims.commands import Commands
from tokenmark.claims.files import Filed
from tokenmark.claims.judged import Judged, Verdict, claimed
from tokenmark.claims.measured import Measured
from tokenmark.claims.numbers import Number, readings
from tokenmark.claims.quantities import SCALES, number
from tokenmark.claims.schema import RATIO_UNITS, Claim
from tokenmark.records import Z95, Record

SAMPLED = frozenset({"gfid", "sfid", "inception-score", "precision", "recall"})
"""Quantities whose number is another for other samples; the others repeat to the last digit on the same images."""
ABOUT = 0.05
"""How far, in shares of it, a number may be from one that its source calls approximate."""


def judge(filed: Sequence[Filed], records: Iterable[Record], commands: Commands | None = None) -> list[Judged]:
    """A verdict for each claim from the current ones of these records; `commands` knows what would run the others."""
    measured, known = Measured(records), commands or Commands()
    return [_judge(each, measured, known) for each in filed]


def _judge(filed: Filed, measured: Measured, commands: Commands) -> Judged:
    claim = filed.claim
    if claim.incomparable:
        return Judged(filed, "not run", f"cannot be compared: {claim.incomparable}")
    if claim.subject.method is None:
        how = "an implementation of the method (docs/add-a-method.md)"
        return Judged(filed, "not run", "the method is not implemented here", needs=how)
    if claim.kind != "absolute" and (claim.baseline is None or claim.baseline.method is None):
        which = f"the baseline ({claim.baseline_name})" if claim.baseline_name else "its baseline"
        return Judged(filed, "not run", f"{which} is no method here", needs="a record of the baseline")
    found = readings(claim, measured)
    if not found and claim.kind != "iso-accuracy" and measured.counted(claim):
        return Judged(filed, "not run", "its records do not tell this of a method of its kind")
    if not found:
        command, needs = commands.to_run(claim)
        return Judged(filed, "not run", f"nothing here measured it; it needs {needs}", command=command, needs=needs)
    return _compared(filed, _agreeing(claim, found))


def _agreeing(claim: Claim, found: Sequence[Number]) -> Number:
    """Of several readings the first that agrees, else the nearest: a claim may be meant in any of them."""
    for each in found:
        if _off(claim, each.value, tolerance(claim, each)[0]) == 0.0:
            return each
    return min(found, key=lambda each: abs(each.value - number(claim.value)))


def _compared(filed: Filed, found: Number) -> Judged:
    """The verdict on what was measured."""
    claim = filed.claim
    allowed, why = tolerance(claim, found)
    off = _off(claim, found.value, allowed)
    words = _words(claim, found, off, allowed, why)
    differing = found.candidate.differing
    verdict: Verdict = "reproduced" if off == 0.0 else "better" if off * _direction(claim) > 0 else "not reproduced"
    if not differing and off != 0.0:
        differing = tuple(f"{axis}: the source does not say" for axis in found.candidate.silent)
        if _up_to(claim) and off < 0:
            differing += ("settings: the claim is the most over settings that it does not name",)
    if differing:
        verdict, words = "protocol differs", f"{'; '.join(differing)}. {words}"
    return Judged(
        filed,
        verdict,
        words + found.label,
        measured=found.value,
        interval=found.interval,
        tolerance=allowed,
        differing=differing,
        records=found.records,
    )


def tolerance(claim: Claim, found: Number) -> tuple[float, str]:
    """How far the measured number may be from the printed one, in the claim's unit, and why."""
    if claim.bound == "about":
        return ABOUT * abs(number(claim.value)), "5 % of a number that is called approximate"
    scale = SCALES.get(claim.unit, 1.0) if claim.kind in {"absolute", "difference"} else 1.0
    port = claim.about_quantity.port / scale if claim.unit not in RATIO_UNITS or claim.kind == "absolute" else 0.0
    printed = claim.half_digit + port
    why = "half the last printed digit" + (f" and {port:g} between ports" if port else "")
    errors = Z95 * found.error if found.error is not None and claim.quantity in SAMPLED else 0.0
    return (errors, f"{Z95} standard errors") if errors > printed else (printed, why)


def _off(claim: Claim, value: float, allowed: float) -> float:
    """How far the value lies outside of what is claimed, with its sign; 0 within."""
    low = number(claim.value)
    high = number(claim.upper) if claim.upper is not None else low
    slack = allowed * (1.0 + 1e-9)  # of two numbers exactly half a digit apart, rounding took either
    if value > high + slack and claim.bound != "at-least":
        return value - high
    if value < low - slack and (claim.bound != "at-most" or _up_to(claim)):
        return value - low
    return 0.0


def _direction(claim: Claim) -> int:
    """1 where a larger printed number is the better one, -1 where a smaller one is, 0 where neither is."""
    direction = {"higher": 1, "lower": -1, "": 0}[claim.about_quantity.better]
    return -direction if claim.kind in {"ratio", "iso-accuracy"} and claim.unit.endswith("less") else direction


def _up_to(claim: Claim) -> bool:
    """Whether an upper bound stands for the best of several settings, which one setting alone cannot reproduce."""
    return claim.bound == "at-most" and _direction(claim) > 0


def _words(claim: Claim, found: Number, off: float, allowed: float, why: str) -> str:
    """The arithmetic of the comparison."""
    value = f"{shown(found.value)} {claim.unit}".rstrip()
    text = f"measured {value}{found.how}, claimed {claimed(claim)}"
    if claim.bound in {"exact", "about"}:
        away = abs(found.value - number(claim.value))
        relation = "within" if off == 0.0 else "more than"
        return f"{text}: {shown(away)} apart, {relation} {shown(allowed)} ({why})"
    return f"{text}: {'it holds' if off == 0.0 else f'{shown(abs(off))} outside of it'}"


def shown(value: float) -> str:
    """A number in as many digits as one needs to check it by hand."""
    if value == int(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.7g}" if abs(value) >= 1e-3 else f"{value:.3g}"
