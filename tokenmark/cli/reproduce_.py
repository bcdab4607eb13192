"""`tokenmark reproduce`: a record's run once more."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

from tokenmark.cli.options import data_option, results_option, suites_option, weights_option


@click.command("reproduce")
@click.argument("record")
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the new record in this folder, which must be empty or new.",
)
@click.option("--device", help="cpu, cuda, cuda:1 ...  [default: the kind that the record names]")
@data_option
@weights_option
@results_option
@suites_option
def command(
    record: str,
    keep: Path | None,
    device: str | None,
    data: Path,
    weights_folder: Path,
    results_folder: Path,
    suites_folder: Path,
) -> int:
    """Measure a record's run again in its pinned environment, and say whether it came out equal.

    RECORD is a record's file, or the beginning of its run's name. Where this environment is the record's (the same
    lock and the same source of the method) it is run here. Otherwise the record's commit is checked out into a folder
    of its own, its lock is installed there by uv, and it is run there: that needs git and uv, and may take a download
    of gigabytes. Records that are here stay as they are.

    Values must be equal bit for bit, or agree within the errors of both; timings are compared by their intervals, and
    on the same device alone.

    Ends with status 0 if all values are equal or within errors, 1 if one differs, 2 if it could not be measured.
    """
    from tokenmark import reproduce  # noqa: PLC0415  the engine takes seconds to import
    from tokenmark.bench import device_of  # noqa: PLC0415
    from tokenmark.checkout import Checkout  # noqa: PLC0415
    from tokenmark.recordview import find  # noqa: PLC0415
    from tokenmark.shelf import Shelf  # noqa: PLC0415
    from tokenmark.store import Results  # noqa: PLC0415

    results = Results(results_folder)
    known = results.read(Path(record)) if record.endswith(".json") else find(results, record)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tokenmark-")))
        place = reproduce.Place(
            folder=reproduce.empty(keep) if keep is not None else work / "results",
            work=work,
            device=device_of(device or known.environment.device),
            data=data,
            shelf=Shelf(weights_folder),
            suites=suites_folder,
        )
        again = reproduce.again(known, place, Checkout.around(Path.cwd()), lambda text: click.echo(text, err=True))
    outcome = reproduce.compared(known, again)
    reproduce.show(outcome)
    click.echo(f"{known.spec.title}, run {known.run[:12]}: {outcome.line()}")
    return 0 if outcome.held else 1
