"""Verdicts as a table for people, as JSON for programs, as Markdown for a text."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tokenmark.claims.judged import VERDICTS, Judged, Verdict
from tokenmark.claims.verdict import shown
from tokenmark.terminal import console

MARKS: dict[Verdict, str] = {
    "reproduced": "=",
    "better": "+",
    "not reproduced": "x",
    "protocol differs": "~",
    "not run": "?",
}
"""One sign for each verdict, for those who do not see colours."""
COLOURS: dict[Verdict, str] = {
    "reproduced": "green",
    "better": "green",
    "not reproduced": "red",
    "protocol differs": "yellow",
    "not run": "dim",
}
BRIEF = 12
"""Claims whose reasons are told beneath the table without being asked for."""


def counts(judged: Iterable[Judged]) -> dict[Verdict, int]:
    """How many claims have each verdict."""
    found = Counter(each.verdict for each in judged)
    return {verdict: found[verdict] for verdict in VERDICTS}


def summary(judged: Sequence[Judged]) -> str:
    """The counts in one line."""
    papers = len({each.filed.file for each in judged})
    parts = [f"{number} {verdict}" for verdict, number in counts(judged).items() if number]
    return f"{_plural(len(judged), 'claim')} of {_plural(papers, 'paper')}: {', '.join(parts)}"


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def print_table(judged: Sequence[Judged], *, reasons: bool, whole: bool = True, to: Console | None = None) -> None:
    """One row per claim, paper by paper; `reasons` tells each one's beneath it.

    Without `whole`, claims that were not run share one row per paper.
    """
    out = to or console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False)
    table.add_column("claim", overflow="fold", max_width=30)
    table.add_column("of", overflow="fold", max_width=24)
    table.add_column("claimed", justify="right", overflow="fold", max_width=16)
    table.add_column("measured", justify="right", overflow="fold", max_width=12)
    table.add_column("verdict", overflow="fold")
    told = [each for each in judged if whole or each.verdict != "not run"]
    for paper in dict.fromkeys(each.filed.file for each in told):
        rows = [each for each in told if each.filed.file == paper]
        table.add_row(f"[bold]{escape(rows[0].filed.paper.name)}[/]", *[""] * 4)
        for each in rows:
            table.add_row(*_row(each))
        others = sum(each.filed.file == paper for each in judged) - len(rows)
        if others:
            table.add_row(f"[dim]{others:,} more[/]", "", "", "", _verdict("not run"))
    out.print(table)
    for each in told if reasons or len(judged) <= BRIEF else ():
        out.print(f"[bold]{escape(each.filed.name)}[/] {each.verdict}: {escape(each.reason)}", soft_wrap=True)
        if each.command:
            out.print(f"  run: {escape(each.command)}", soft_wrap=True)
    out.print(escape(summary(judged)))
    if len(told) < len(judged):
        out.print(
            "Claims that were not run are not listed; with what each needs: tokenmark verify --verdict 'not run'"
            " --reasons, or --paper NAME"
        )


def _row(each: Judged) -> tuple[str, ...]:
    about = escape(f"{each.claim.about_quantity.title}, {each.claim.about}")
    measured = "" if each.measured is None else shown(each.measured)
    return escape(each.claim.id), about, escape(each.claimed), measured, _verdict(each.verdict)


def _verdict(verdict: Verdict) -> str:
    return f"[{COLOURS[verdict]}]{MARKS[verdict]} {verdict}[/]"


def to_json(judged: Iterable[Judged]) -> str:
    """A list of objects, one per claim."""
    return json.dumps([_plain(each) for each in judged], indent=1, ensure_ascii=False)


def _plain(each: Judged) -> dict[str, Any]:
    return {
        "paper": each.filed.file,
        "claim": each.claim.model_dump(mode="json", exclude_none=True),
        "verdict": each.verdict,
        "reason": each.reason,
        "measured": each.measured,
        "interval": each.interval,
        "tolerance": each.tolerance,
        "differing": each.differing,
        "runs": [record.run for record in each.records],
        "command": each.command,
        "needs": each.needs,
    }


def to_markdown(judged: Sequence[Judged]) -> str:
    """A table with a row per claim, and the counts."""
    rows = ["| claim | of | claimed | measured | verdict | why |", "|---|---|---|---|---|---|"]
    for each in judged:
        measured = "" if each.measured is None else shown(each.measured)
        about = f"{each.claim.about_quantity.title}, {each.claim.about}"
        cells = (each.filed.name, about, each.claimed, measured, each.verdict, each.reason)
        rows.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join([*rows, "", summary(judged), ""])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
