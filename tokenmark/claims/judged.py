"""What was found of a claim: its verdict and how it came about. Computed whenever it is shown, never stored."""

from dataclasses import dataclass
from typing import Literal

from tokenmark.claims.files import Filed
from tokenmark.claims.schema import Claim
from tokenmark.records import Record

Verdict = Literal["reproduced", "better", "not reproduced", "protocol differs", "not run"]
VERDICTS: tuple[Verdict, ...] = ("reproduced", "better", "not reproduced", "protocol differs", "not run")


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim beside what was measured. Numbers are in the claim's own unit."""

    filed: Filed
    verdict: Verdict
    reason: str
    """In words: the arithmetic of the comparison, or what keeps it from being made."""
    measured: float | None = None
    interval: tuple[float, float] | None = None
    """95 %, where an error is known."""
    tolerance: float | None = None
    """How far the measured value may be from the claimed one."""
    differing: tuple[str, ...] = ()
    """The axes on which the measurement differs from the claim, or of which the source says nothing."""
    records: tuple[Record, ...] = ()
    """What was measured: the method's record, and the baseline's where the claim has one."""
    command: str | None = None
    """What would run it, where nothing has."""
    needs: str | None = None
    """What that command needs."""

    @property
    def claim(self) -> Claim:
        """The claim itself."""
        return self.filed.claim

    @property
    def claimed(self) -> str:
        """The claimed number as printed, with its bound, sign and unit."""
        return claimed(self.claim)


def claimed(claim: Claim) -> str:
    """A claim's number as printed, with its bound and unit: `at least 1.5 x`."""
    value = claim.value if claim.kind != "difference" or claim.value[0] in "+-" else f"+{claim.value}"
    number = f"{value} to {claim.upper}" if claim.upper is not None else value
    before = {"about": "about ", "at-least": "at least ", "at-most": "at most "}.get(claim.bound, "")
    return f"{before}{number} {claim.unit}".rstrip()
