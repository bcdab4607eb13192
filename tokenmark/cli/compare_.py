"""`tokenmark compare`: two records side by side."""

from pathlib import Path

import click

from tokenmark.cli.options import results_option


@click.command("compare")
@click.argument("first")
@click.argument("second")
@results_option
def command(first: str, second: str, results_folder: Path) -> None:
    """Compare two records: what differs in what was run and where, and which values differ beyond their errors.

    FIRST and SECOND are the beginnings of two runs' names.
    """
    from tokenmark.recordview import find, print_comparison  # noqa: PLC0415  the engine takes seconds to import
    from tokenmark.store import Results  # noqa: PLC0415

    results = Results(results_folder)
    print_comparison(find(results, first), find(results, second))
