"""`tokenmark prepare`: ImageNet, decoded and cropped once."""

from pathlib import Path

import click

from tokenmark.cli.options import data_option


@click.command("prepare")
@click.argument("collection", metavar="DATA_SET", type=click.Choice(("imagenet-val", "imagenet-train")))
@click.option(
    "--source", type=click.Path(path_type=Path), required=True, help="The tar or folder that you have; see above."
)
@click.option("--size", type=click.IntRange(1, 4096), default=256, show_default=True, help="Side of the squares.")
@click.option(
    "--crop",
    type=click.Choice(("adm", "bicubic", "bicubic-875", "bicubic-900", "centre-only", "lanczos")),
    default="adm",
    show_default=True,
    help="How pictures become squares; a protocol's data set is named after the rule that it needs.",
)
@click.option(
    "--labels",
    type=click.Path(path_type=Path, exists=True),
    help="For a tar or a flat folder: the devkit, LOC_val_solution.csv, or a text with a WordNet id per image."
    " Looked for beside the source if it is not given.",
)
@click.option("--workers", type=click.IntRange(1), help="Processes that decode.  [default: all cores]")
@click.option("--limit", type=click.IntRange(1), help="Only so many images, classes taking turns.")
@click.option(
    "--allow-subset", is_flag=True, help="Go on with a part of the set; every record from it says: not comparable."
)
@data_option
def command(
    collection: str,
    source: Path,
    size: int,
    crop: str,
    labels: Path | None,
    workers: int | None,
    limit: int | None,
    allow_subset: bool,
    data: Path,
) -> None:
    """Prepare DATA_SET (imagenet-val or imagenet-train): check, decode, crop, and write one array.

    \b
    SOURCE is what you have:
      ILSVRC2012_img_val.tar        the official tar, as it is; with labels
      a folder of 50,000 pictures   the same, unpacked; with labels
      a folder per class            n01440764/ILSVRC2012_val_00000293.JPEG ...
      a folder of parquet shards    the hub's imagenet-1k; needs tokenmark[parquet]

    \b
    Examples:
      tokenmark prepare imagenet-val --source ILSVRC2012_img_val.tar --labels ILSVRC2012_devkit_t12.tar.gz
      tokenmark prepare imagenet-val --source imagenet/val --crop bicubic
      tokenmark prepare imagenet-val --source imagenet/val --limit 1000 --allow-subset

    The set is written to DATA/<data set>-<size>-<crop>: 9.83 GB for the validation set at 256. What is missing, extra
    or unreadable is told file by file, and then nothing is published. Stop it whenever you like: the same command goes
    on where it was.
    """  # noqa: D301  click's own sign: lines that follow are not joined
    from tokenmark.cli.bar import Bar  # noqa: PLC0415  as the next
    from tokenmark.cli.source import cores  # noqa: PLC0415
    from tokenmark.data.imagenet import COLLECTIONS  # noqa: PLC0415
    from tokenmark.data.prepare import Request, prepare  # noqa: PLC0415  the engine takes seconds to import
    from tokenmark.data.summary import summary  # noqa: PLC0415
    from tokenmark.terminal import console  # noqa: PLC0415

    request = Request(
        collection=COLLECTIONS[collection],
        source=source,
        data=data,
        side=size,
        crop=crop,
        labels=labels,
        workers=workers or cores(),
        limit=limit,
        allow_subset=allow_subset,
    )
    out = console()
    bar = Bar(out)
    with bar.shown():
        manifest = prepare(request, bar)
    for line in summary(manifest, data / request.name):
        out.print(line, soft_wrap=True, markup=False)
