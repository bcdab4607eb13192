"""`tokenmark compare`: two records, commits or devices side by side."""

import json
from pathlib import Path

import click

from tokenmark.cli.options import results_option


@click.command("compare")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: every value of every pair.")
@results_option
def command(first: str, second: str, as_json: bool, results_folder: Path) -> None:
    """Compare two records, commits or devices: what differs in what was run and where, and which values differ
    beyond their errors.

    A and B are each the beginning of a run's name, a record's file, a commit (its records are read from git; the
    working tree stays as it is), or part of a device's name. Of commits and devices, records are joined by what was
    asked for, and those values are shown that are not the same bit for bit.

    \b
    Examples:
      tokenmark compare 61369b3b 0fe1fedd
      tokenmark compare HEAD~1 HEAD
      tokenmark compare Xeon H100
    """  # noqa: D205, D301  click's own sign: lines that follow are not joined
    from tokenmark import comparison, comparisonview  # noqa: PLC0415  the engine takes seconds to import
    from tokenmark.store import Results  # noqa: PLC0415

    results = Results(results_folder)
    found = comparison.compare(comparison.side(first, results), comparison.side(second, results))
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=1))
    else:
        comparisonview.show(found)
