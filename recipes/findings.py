"""docs/findings.md: printed costs and sizes that do not follow from their own configuration, with the arithmetic."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from tokenmark.claims import arithmetic, files, verdict
from tokenmark.claims.commands import Commands
from tokenmark.claims.judged import Judged
from tokenmark.claims.report import counts
from tokenmark.records import Record
from tokenmark.store import Results
from tokenmark.tracks import current

HEAD = """# Findings

Printed sizes and costs that do not follow from their own configuration: every claim about structure whose verdict is
*not reproduced* ([how claims are judged](verify.md)). Sizes and costs depend on nothing but the architecture: a
difference beyond the last printed digit is in what was printed, in what was counted, or in the reading of the paper
that is implemented here. Each entry says what is known. `nox -s docs` writes this page from the claims and the records;
`tokenmark verify --verdict "not reproduced"` prints the same verdicts.

"""


KEEP_RATE = """## One keep rate, several costs

Methods are compared at a keep rate, which is no budget: where a method reduces, how it rounds and what it adds move the
cost. DeiT-S at 224 pixels and a keep rate of 0.7, without weights ([budgets](budgets.md) compares at equal cost):
"""
MODEL, RATE = "deit_small_patch16_224.random", 0.7
WIDTH = 118


def page(root: Path) -> str:
    """The page's text."""
    filed, records = files.load(root / "results/claims"), current(Results(root / "results").all())
    judged = verdict.judge(filed, records, Commands.of_folder(root / "suites"))
    structure = [each for each in judged if each.claim.about_quantity.family == "structure"]
    counted = [each for each in records if each.spec.suite == "structure"]
    return "\n".join([HEAD + _counted(structure), *_papers(structure), *_one_rate(counted), ""])


def _counted(judged: Sequence[Judged]) -> str:
    found = counts(judged)
    had = sum(number for name, number in found.items() if name != "not run")
    text = (
        f"Of {len(judged):,} claims about structure {had:,} were checked: {found['reproduced']:,} hold to the printed"
        f" digit, {found['not reproduced']:,} do not, and {found['protocol differs']:,} cannot be told, for the source"
        " does not say at which resolution."
    )
    return _wrapped(text) + "\n"


def _papers(judged: Sequence[Judged]) -> list[str]:
    off = [each for each in judged if each.verdict == "not reproduced"]
    lines: list[str] = []
    for paper in dict.fromkeys(each.filed.file for each in off):
        of_paper = [each for each in off if each.filed.file == paper]
        lines += [f"## {of_paper[0].filed.paper.name}", "", *(line for each in of_paper for line in _entry(each))]
    return lines


def _entry(each: Judged) -> list[str]:
    claim = each.claim
    words = [f"**{claim.about}**, {claim.about_quantity.title}: {each.reason}. Printed in {claim.printed}."]
    if sums := arithmetic.of(each):
        words.append(f"Arithmetic: {sums}.")
    if claim.note:
        words.append(f"{claim.note[0].upper()}{claim.note[1:].rstrip('.')}.")
    return [_wrapped(" ".join(words), "- ", "  "), ""]


def _wrapped(text: str, first: str = "", then: str = "") -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=then, break_long_words=False, break_on_hyphens=False
    )


def _one_rate(records: Sequence[Record]) -> list[str]:
    """What each method costs on one model at one keep rate, dearest first."""
    alike = [each for each in records if (each.spec.model, each.spec.settings) == (MODEL, {"keep_rate": RATE})]
    rows = sorted(alike, key=lambda each: -_number(each, "macs"))
    lines = [_row(each, rows[-1]) for each in rows]
    heads = ("method", "tokens left", "GMACs", "with the method's own", "over the cheapest")
    return [KEEP_RATE, f"| {' | '.join(heads)} |", "|---|---|---|---|---|", *lines]


def _row(record: Record, cheapest: Record) -> str:
    left, macs, total = (_number(record, name) for name in ("tokens_left", "macs", "macs_total"))
    more = 100 * (macs / _number(cheapest, "macs") - 1)
    return f"| `{record.spec.method}` | {left:.0f} | {macs / 1e9:.3f} | {total / 1e9:.3f} | {more:+.1f} % |"


def _number(record: Record, name: str) -> float:
    value = record.value(name)
    return value.value if value is not None else float("nan")
