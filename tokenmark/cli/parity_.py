"""`tokenmark parity`: an implementation beside its release."""

from pathlib import Path

import click

from tokenmark.errors import TokenmarkError


@click.command("parity")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False), metavar="FILE...")
def command(files: tuple[Path, ...]) -> int:
    """Prove that a method gives what its official release gives, without the release's weights.

    \b
    FILE is a parity vector (JSON): the release's configuration, keys and shapes, and what it gave in float64 when
    every weight and input was made by rule from its name. The method is built from that configuration, filled by
    the release's keys, run in float64, and every recorded output is compared to 1e-6 of its root mean square.
    A manifest (*.manifest.json) has no outputs: keys and shapes are compared with a checkpoint's, one by one.

    \b
    Exit status: 0 all agree, 1 something differs (one line each, the first that departs first), 2 a mistake.
    docs/parity.md says how to prove a method of your own.
    """  # noqa: D301  click's own sign: lines that follow are not joined
    from tokenmark import parity  # noqa: PLC0415  the engine takes seconds to import

    status = 0
    for file in files:
        try:
            report = parity.compare(parity.load(file))
        except TokenmarkError as error:
            click.echo(f"tokenmark: {' '.join(str(error).split())}", err=True)
            status = 2
            continue
        for index, line in enumerate(report.mismatches):
            click.echo(f"{report.title}: {'first to depart: ' if not index else ''}{line}")
        if report.mismatches:
            status = max(status, 1)
            continue
        outputs = f"and {report.outputs} outputs" if report.outputs else "of the checkpoint"
        click.echo(f"{report.title}: {report.keys} keys {outputs} agree")
    return status
