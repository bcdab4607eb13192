"""`tokenmark show`: records, read."""

from pathlib import Path

import click

from tokenmark.cli.options import results_option


@click.command("show")
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the record's JSON.")
@results_option
def command(run: str | None, as_json: bool, results_folder: Path) -> None:
    """Show all records as one table per track, or one record in full.

    RUN is the beginning of a run's name, as tables and the page show it.
    """
    from tokenmark import tables  # noqa: PLC0415  the engine takes seconds to import
    from tokenmark.recordview import find, print_record  # noqa: PLC0415
    from tokenmark.store import Results  # noqa: PLC0415

    results = Results(results_folder)
    if run is None:
        records = results.all()
        if not records:
            click.echo(f"No records in {results.records}: `tokenmark run mini` makes some.")
        tables.print_tracks(records)
        return
    record = find(results, run)
    if as_json:
        click.echo(record.to_json().decode(), nl=False)
    else:
        print_record(record)
