"""`tokenmark run`: measure a suite."""

import os
from pathlib import Path

import click

from tokenmark.cli.options import data_option, device_option, results_option, shelf_option, suites_option


@click.command("run")
@click.argument("suite")
@click.option("--method", "methods", multiple=True, help="Only the jobs of this method; may be repeated.")
@device_option
@data_option
@shelf_option
@click.option("--download", is_flag=True, help="Download weights that are pinned and not there yet.")
@click.option("--page/--no-page", default=True, show_default=True, help="Write the leaderboard page at the end.")
@results_option
@suites_option
def command(
    suite: str,
    methods: tuple[str, ...],
    device: str,
    data: Path,
    shelf_folder: Path,
    download: bool,
    page: bool,
    results_folder: Path,
    suites_folder: Path,
) -> int:
    """Measure SUITE: a name (see `tokenmark list suites`) or a path to a suite file.

    What has a record already is left alone; what was stopped goes on where it was. Records are written to
    RESULTS/records, and logged to MLflow (MLFLOW_TRACKING_URI, or a sqlite file in RESULTS). Weights that are missing
    are told before anything is measured, with the command that gets them; other jobs are not held up.

    Ends with status 0 if all is measured, 2 if something could not be.
    """
    from tokenmark.bench import Bench  # noqa: PLC0415  the engine takes seconds to import
    from tokenmark.shelf import Shelf  # noqa: PLC0415

    bench = Bench(
        results_folder=results_folder,
        data_folder=data,
        device=device,
        checkpoint_seconds=float(os.environ.get("TOKENMARK_CHECKPOINT_SECONDS", "10")),
        shelf=Shelf(shelf_folder, download),
    )
    return bench.run(suite, suites_folder, methods, page=page)
