"""`tokenmark fid`: distances between two image sets, under one protocol or several side by side."""

import json
from pathlib import Path
from typing import Any

import click

from tokenmark.cli.options import device_option

ALL = "all"


@click.command("fid")
@click.argument("judged", type=click.Path(path_type=Path), metavar="A")
@click.argument("reference", type=click.Path(path_type=Path), metavar="B")
@click.option(
    "--protocol",
    "names",
    multiple=True,
    default=("torch-fidelity",),
    show_default=True,
    help="A name from `tokenmark protocols`; may be repeated. `all` takes every library's.",
)
@click.option("--weights", type=click.Path(path_type=Path), help="Inception weights, instead of the published file.")
@click.option("--weights-sha256", help="The hash that these weights must have.")
@click.option("--batch-size", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@device_option
def command(
    judged: Path,
    reference: Path,
    names: tuple[str, ...],
    weights: Path | None,
    weights_sha256: str | None,
    batch_size: int,
    as_json: bool,
    device: str,
) -> None:
    """Fréchet distance of image set A from reference B.

    A and B are folders of images, prepared data, .npy files, or .npz files as papers exchange them (samples under
    arr_0). B may also be a file of statistics, like ADM's VIRTUAL_imagenet256_labeled.npz.

    Images are taken as they are, 8-bit and already cropped: a protocol's crop and rounding belong to whoever made them.
    """
    from tokenmark import fid  # noqa: PLC0415  the engine takes seconds to import
    from tokenmark.bench import device_of  # noqa: PLC0415
    from tokenmark.networks import Given  # noqa: PLC0415

    found = fid.run(judged, reference, names, Given(weights, weights_sha256), device_of(device), batch_size)
    if as_json:
        rows: list[dict[str, Any]] = [row.to_dict() for row in found]
        click.echo(json.dumps(rows, indent=1))
        return
    fid.show(found, judged, reference)
