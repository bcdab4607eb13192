"""`tokenmark submit`: records made ready for a pull request."""

from pathlib import Path

import click

from tokenmark.cli.options import results_option


@click.command("submit")
@click.argument("records", metavar="RECORD...", nargs=-1, required=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("submission"),
    show_default=True,
    help="Folder of what the pull request needs; an earlier submission there is replaced.",
)
@results_option
def command(records: tuple[str, ...], out: Path, results_folder: Path) -> int:
    """Check records, and write what a pull request with them needs. To be run in a clone of the repository.

    RECORD is a record's file, or the beginning of its run's name. Every check of `tokenmark check-results --list` is
    made, and the method put beside its release where there are vectors. If one fails nothing is written.

    \b
    Examples:
      tokenmark submit 61369b3b3a36
      tokenmark submit results/records/mini/tome/*.json --out my-submission

    Ends with status 0 if the submission is written, 2 if something is refused, with one line each.
    """  # noqa: D301  click's own sign: lines that follow are not joined
    from tokenmark.checkout import Checkout  # noqa: PLC0415  the engine takes seconds to import
    from tokenmark.cli.saying import saying  # noqa: PLC0415
    from tokenmark.publish import submit  # noqa: PLC0415
    from tokenmark.publish.subject import Known  # noqa: PLC0415
    from tokenmark.store import Results  # noqa: PLC0415

    results, checkout = Results(results_folder), Checkout.around(Path.cwd())
    paths = submit.found(results, records)
    with saying() as say:
        known = Known(checkout, results.records, say=say)
        refused = submit.check(paths, results, known)
    for refusal in refused:
        click.echo(f"tokenmark: {refusal}", err=True)
    if refused:
        return 2
    written = submit.write(paths, out, known)
    for note in known.notes:
        click.echo(f"note: {note}")
    click.echo(
        f"{len(written)} record{'s' if len(written) > 1 else ''} in {out}, all checks passed. To open the pull request:"
    )
    for line in submit.commands(written, out, checkout):
        click.echo(f"  {line}")
    return 0
