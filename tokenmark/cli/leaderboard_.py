"""`tokenmark leaderboard`: the site."""

from pathlib import Path

import click

from tokenmark.cli.options import results_option


@click.command("leaderboard")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder to write, in place of the site that it holds; RESULTS/site if not given.",
)
@results_option
def command(out: Path | None, results_folder: Path) -> None:
    """Write the leaderboard from all records and claims: linked pages that need no network."""
    from tokenmark.leaderboard import site  # noqa: PLC0415  the engine takes seconds to import
    from tokenmark.store import Results  # noqa: PLC0415

    written = site.write(Results(results_folder), out or results_folder / "site")
    click.echo(f"Page: {written.resolve()}")
