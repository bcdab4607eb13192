"""`tokenmark check-results`: what CI asks of the records that a pull request brings."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokenmark.cli.options import results_option

if TYPE_CHECKING:
    from tokenmark.publish.history import Report


@click.command("check-results")
@click.option("--base", metavar="COMMIT", help="Check only what differs from this commit, and what became of the rest.")
@click.option("--list", "list_only", is_flag=True, help="List the checks, and check nothing.")
@results_option
def command(base: str | None, list_only: bool, results_folder: Path) -> int:
    """Check records before others are shown them: one line for each that is refused.

    Without --base every record is asked what holds for old ones too. With it, those that were added are asked all
    (today's method, suite, protocol, weights and data among it), and none of the others may be changed, or deleted
    without a newer record of the same request.

    \b
    Examples:
      tokenmark check-results
      tokenmark check-results --base origin/main

    Ends with status 0 if all are well, 1 if something is refused, 2 if the command was wrong. docs/publish.md says
    what each check asks.
    """  # noqa: D301  click's own sign: lines that follow are not joined
    from tokenmark.checkout import Checkout  # noqa: PLC0415  the engine takes seconds to import
    from tokenmark.cli.saying import saying  # noqa: PLC0415
    from tokenmark.errors import TokenmarkError  # noqa: PLC0415
    from tokenmark.publish import checks, history  # noqa: PLC0415
    from tokenmark.publish.subject import Known  # noqa: PLC0415
    from tokenmark.store import Results  # noqa: PLC0415

    if list_only:
        for name, about in checks.listed():
            click.echo(f"{name:15s} {about}")
        return 0
    if not results_folder.is_dir():
        raise TokenmarkError(f"there is no folder {results_folder}: name one with --results")
    results = Results(results_folder)
    checkout = Checkout.around(results_folder)
    with saying() as say:
        report = history.check(checkout, results, base, Known(checkout, results.records, say=say))
    for note in report.notes:
        click.echo(f"note: {note}")
    for refusal in report.refusals:
        click.echo(str(refusal))
    refused = len({refusal.place for refusal in report.refusals})
    click.echo(
        f"{report.checked} records checked{_differs(report)}: {f'{refused} refused' if refused else 'all well'}."
    )
    return 1 if refused else 0


def _differs(report: "Report") -> str:
    if report.changes is None:
        return ""
    found = report.changes
    return f" that differ from {found.base[:12]}; {len(found.changed)} changed, {len(found.deleted)} deleted files"
