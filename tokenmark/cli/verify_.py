"""`tokenmark verify`: whether what papers print holds."""

from pathlib import Path

import click

from tokenmark.cli.options import results_option, suites_option

NAMES = ("reproduced", "better", "not reproduced", "protocol differs", "not run")


@click.command("verify")
@click.option("--paper", "papers", multiple=True, help="Only this paper's claims: a file of results/claims; repeats.")
@click.option("--method", "methods", multiple=True, help="Only claims about this method; repeats.")
@click.option("--claim", "names", multiple=True, metavar="PAPER/ID", help="Only this claim; repeats.")
@click.option("--verdict", "verdicts", multiple=True, type=click.Choice(NAMES), help="Only this verdict; repeats.")
@click.option("--reasons", is_flag=True, help="Tell the arithmetic or the obstacle of every claim under the table.")
@click.option("--strict", is_flag=True, help="Status 1 if a claim shown is not reproduced.")
@click.option("--format", "form", type=click.Choice(["table", "json", "markdown"]), default="table", show_default=True)
@results_option
@suites_option
def command(
    papers: tuple[str, ...],
    methods: tuple[str, ...],
    names: tuple[str, ...],
    verdicts: tuple[str, ...],
    form: str,
    results_folder: Path,
    suites_folder: Path,
    *,
    reasons: bool,
    strict: bool,
) -> int:
    r"""Put what papers print beside what was measured: one verdict per claim, from RESULTS/claims and the records.

    \b
      =  reproduced        within half the last printed digit, or the error of sampling
      +  better            beyond that, on the better side
      x  not reproduced    beyond that, on the other side
      ~  protocol differs  measured under other circumstances, which are named
      ?  not run           nothing here measured it; says what would, and what that needs

    \b
      tokenmark verify --paper titok              one paper
      tokenmark verify --verdict "not reproduced" what does not hold
      tokenmark verify --claim evit/deit-s-kr70-macs  one claim with its arithmetic

    See docs/verify.md.
    """
    from tokenmark.claims import files, report, verdict  # noqa: PLC0415  the engine takes seconds to import
    from tokenmark.claims.commands import Commands  # noqa: PLC0415
    from tokenmark.store import Results  # noqa: PLC0415

    filed = files.chosen(files.load(results_folder / "claims"), papers=papers, methods=methods, names=names)
    judged = verdict.judge(filed, Results(results_folder).all(), Commands.of_folder(suites_folder))
    shown = [each for each in judged if not verdicts or each.verdict in verdicts]
    if form == "json":
        click.echo(report.to_json(shown))
    elif form == "markdown":
        click.echo(report.to_markdown(shown), nl=False)
    else:
        report.print_table(shown, reasons=reasons, whole=bool(papers or methods or names or verdicts))
    return 1 if strict and any(each.verdict == "not reproduced" for each in shown) else 0
