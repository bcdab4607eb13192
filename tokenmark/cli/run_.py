"""`tokenmark run`: measure suites."""

import os
from pathlib import Path

import click

from tokenmark.cli.options import device_option, results_option, suites_option

HUB = "hub"


@click.command("run")
@click.argument("suites", metavar="SUITE...", nargs=-1, required=True)
@click.option("--method", "--methods", "methods", multiple=True, help="Only these methods; commas or repeats.")
@click.option(
    "--run", "runs", multiple=True, metavar="PREFIX", help="Only runs whose names (or experiments) begin so; repeats."
)
@click.option(
    "--limit", type=click.IntRange(min=2), help="At most so many images a run; its records say: not comparable."
)
@device_option
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Folder of prepared data, or ImageNet's validation set as you have it (`tokenmark prepare --help`).",
)
@click.option(
    "--prepared",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("data"),
    show_default=True,
    help="Where sets go that are prepared from ImageNet as you have it.",
)
@click.option(
    "--weights",
    metavar="PATH|hub",
    help="Folder of weights that others published; `hub` downloads what is pinned and missing (`tokenmark weights"
    " --help`).  [default: TOKENMARK_WEIGHTS, or weights]",
)
@click.option(
    "--keep", type=click.IntRange(min=1), metavar="N", help="Keep the first N samples of each generation run as an npz."
)
@click.option(
    "--samples",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where they go; each as <run>.npz, which ADM's evaluator reads.  [default: RESULTS/samples]",
)
@click.option("--page/--no-page", default=True, show_default=True, help="Write the leaderboard page at the end.")
@results_option
@suites_option
def command(
    suites: tuple[str, ...],
    methods: tuple[str, ...],
    runs: tuple[str, ...],
    limit: int | None,
    device: str,
    data: Path,
    prepared: Path,
    weights: str | None,
    keep: int | None,
    samples: Path | None,
    page: bool,
    results_folder: Path,
    suites_folder: Path,
) -> int:
    """Measure each SUITE: a name (see `tokenmark list suites`) or a path to a suite file.

    What has a record already is left alone; what was stopped goes on where it was. Records are written to
    RESULTS/records, and logged to MLflow (MLFLOW_TRACKING_URI, or a sqlite file in RESULTS).

    \b
    Examples:
      tokenmark run mini
      tokenmark run reconstruction-256 --data /data/imagenet --methods titok,one-d-piece
      tokenmark run classification --data /data/imagenet --limit 1000
      tokenmark run generation-256 --methods titok-maskgit --weights hub --keep 50000

    What lacks data or weights is left out, with a line that says how to get them. Ends with status 0 if everything
    else is measured, 2 if something failed or nothing could be measured.
    """  # noqa: D301  click's own sign: lines that follow are not joined
    from tokenmark.bench import Bench  # noqa: PLC0415  the engine takes seconds to import
    from tokenmark.cli.source import ImageNetSource, places  # noqa: PLC0415
    from tokenmark.kept import Keep  # noqa: PLC0415
    from tokenmark.shelf import Shelf  # noqa: PLC0415
    from tokenmark.terminal import console  # noqa: PLC0415

    folder, source = places(data, prepared, limit)
    bench = Bench(
        results_folder=results_folder,
        data_folder=folder,
        device=device,
        checkpoint_seconds=float(os.environ.get("TOKENMARK_CHECKPOINT_SECONDS", "10")),
        shelf=Shelf(download=True) if weights == HUB else Shelf(Path(weights)) if weights else Shelf(),
        source=ImageNetSource(source, console()) if source is not None else None,
        keep=Keep(keep, samples or results_folder / "samples") if keep is not None else None,
    )
    named = tuple(name.strip() for given in methods for name in given.split(",") if name.strip())
    return bench.run(suites, suites_folder, named, limit=limit, page=page, runs=runs)
