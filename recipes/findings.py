"""docs/findings.md: printed costs and sizes that do not follow from their own configuration, with the arithmetic."""

from collections.abc import Sequence
from pathlib import Path

from tokenmark.claims import arithmetic, files, verdict
from tokenmark.claims.commands import Commands
from tokenmark.claims.judged import Judged
from tokenmark.claims.report import counts
from tokenmark.store import Results

HEAD = """# Findings

Printed sizes and costs that do not follow from their own configuration: every claim about structure whose verdict is
*not reproduced* ([how claims are judged](verify.md)). Sizes and costs depend on nothing but the architecture: a
difference beyond the last printed digit is in what was printed, in what was counted, or in the reading of the paper
that is implemented here. Each entry says what is known. `nox -s docs` writes this page from the claims and the records;
`tokenmark verify --verdict "not reproduced"` prints the same verdicts.

"""


def page(root: Path) -> str:
    """The page's text."""
    filed = files.load(root / "results/claims")
    judged = verdict.judge(filed, Results(root / "results").all(), Commands.of_folder(root / "suites"))
    structure = [each for each in judged if each.claim.about_quantity.family == "structure"]
    return HEAD + _counted(structure) + "\n".join(_papers(structure)) + "\n"


def _counted(judged: Sequence[Judged]) -> str:
    found = counts(judged)
    had = sum(number for name, number in found.items() if name != "not run")
    numbers = (
        f"Of {len(judged):,} claims about structure, {had:,} could be checked: {found['reproduced']:,} hold to the"
    )
    return (
        f"{numbers}\nprinted digit, {found['not reproduced']:,} do not, and of {found['protocol differs']:,} the source"
        " does not say at which resolution.\n\n"
    )


def _papers(judged: Sequence[Judged]) -> list[str]:
    off = [each for each in judged if each.verdict == "not reproduced"]
    lines: list[str] = []
    for paper in dict.fromkeys(each.filed.file for each in off):
        of_paper = [each for each in off if each.filed.file == paper]
        lines += [f"## {of_paper[0].filed.paper.name}", "", *(line for each in of_paper for line in _entry(each))]
    return lines


def _entry(each: Judged) -> list[str]:
    claim = each.claim
    lines = [f"- **{claim.about}**, {claim.about_quantity.title}: {each.reason}. Printed in {claim.printed}."]
    sums = arithmetic.of(each)
    if sums:
        lines.append(f"  Arithmetic: {sums}.")
    if claim.note:
        lines.append(f"  {claim.note[0].upper()}{claim.note[1:]}.")
    return [*lines, ""]
