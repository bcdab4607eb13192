"""`tokenmark sync`: MLflow from the records."""

from pathlib import Path

import click

from tokenmark.cli.options import results_option


@click.command("sync")
@results_option
def command(results_folder: Path) -> None:
    """Log to MLflow every record that is not there yet.

    The store is MLFLOW_TRACKING_URI, or a sqlite file in RESULTS. It can be deleted and made again from records.
    """
    from rich.progress import track  # noqa: PLC0415

    from tokenmark.store import Results  # noqa: PLC0415  the engine takes seconds to import
    from tokenmark.tracking import Tracker  # noqa: PLC0415

    results = Results(results_folder)
    records = results.all()
    tracker = Tracker(results)
    new = sum(tracker.log(record) for record in track(records, "logging"))
    drawn = tracker.log_curves(records)
    click.echo(f"{tracker.uri}: {new} records logged, {len(records) - new} were there, {drawn} curves drawn")
