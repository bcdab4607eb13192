"""`tokenmark throughput`: how fast methods make models, without data and without released weights."""

from pathlib import Path
from typing import Any

import click

from tokenmark.cli.options import results_option


@click.command("throughput")
@click.option("--models", default="", help="Vision transformers by their names in timm, separated by commas.")
@click.option("--tokenizers", default="", help="Tokenizers, separated by commas: titok/s128, or titok for all sizes.")
@click.option("--methods", default="none,tome", show_default=True, help="Reducers, separated by commas.")
@click.option(
    "--set",
    "given",
    multiple=True,
    metavar="METHOD.SETTING=VALUE",
    help="A setting of a method (tome.r=8); may be repeated. Others follow from the model's depth.",
)
@click.option("--batches", default="1,64", show_default=True, help="Batch sizes, separated by commas.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@click.option("--compiled", is_flag=True, help="Time the unreduced model through torch.compile too.")
@click.option(
    "--device", default="auto", show_default=True, help="cpu, cuda, cuda:1 ...; auto takes a GPU if there is one."
)
@click.option("--seed", default=0, show_default=True, help="Draws weights and images.")
@click.option("--min-seconds", default=2.0, show_default=True, help="Shortest measured time per contender and batch.")
@click.option("--min-rounds", default=30, show_default=True, help="Fewest measured rounds.")
@results_option
def command(results_folder: Path, device: str, **asked: Any) -> int:
    """Measure how fast timm models with reduced tokens are, and tokenizers. Weights and images are random (seeded).

    Of a tokenizer encoding, decoding and both are timed, with --compiled also through torch.compile. Each reduction
    method takes turns with the unreduced model: eager attention, fused attention and, with --compiled, compiled.
    Records are written to RESULTS/records/throughput; a run that has its record is not measured again.

    Ends with status 0 if all is measured, 2 if something could not be.
    """
    from tokenmark import speedsuite  # noqa: PLC0415  the engine takes seconds to import
    from tokenmark.bench import Bench  # noqa: PLC0415

    suite = speedsuite.suite(**asked)
    bench = Bench(results_folder=results_folder, data_folder=Path("data"), device=device, checkpoint_seconds=10.0)
    return bench.measure({speedsuite.NAME: suite}, page=False)
