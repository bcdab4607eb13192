"""`tokenmark leaderboard`: the page."""

from pathlib import Path

import click

from tokenmark.cli.options import results_option


@click.command("leaderboard")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="File to write; RESULTS/site/index.html if not given.",
)
@results_option
def command(out: Path | None, results_folder: Path) -> None:
    """Write the leaderboard page from all records: one HTML file that needs no network."""
    from tokenmark.leaderboard import page  # noqa: PLC0415  the engine takes seconds to import
    from tokenmark.store import Results  # noqa: PLC0415

    written = page.write(Results(results_folder), out or results_folder / "site" / "index.html")
    click.echo(f"Page: {written.resolve()}")
