"""`tokenmark tokenize`: look at what a tokenizer keeps of a picture."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tokenmark.cli.options import device_option
from tokenmark.errors import MethodError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@click.command("tokenize")
@click.argument("image", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--method", required=True, help="A tokenizer, as `tokenmark list` shows it.")
@click.option("--variant", help="Its size; without it, the first whose weights are here.")
@click.option("--tokens", default="", help="Lengths of code to show, separated by commas: 1,4,16.")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="A checkpoint of this variant as it was released, or the folder where weights of others lie"
    " (see `tokenmark weights --help`).",
)
@click.option("--text", default="", help="What the picture shows, for decoders that are told: 'A photo of a cat.'")
@click.option("--seed", default=0, show_default=True, help="Of the noise that some tokenizers draw.")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=Path("tokens"), show_default=True)
@device_option
def command(
    image: Path,
    method: str,
    variant: str | None,
    tokens: str,
    weights: Path | None,
    text: str,
    seed: int,
    output: Path,
    device: str,
) -> None:
    """Encode and decode IMAGE, at several lengths of code where the method allows, and look at both.

    \b
    Writes into OUTPUT:
      <image>.<method>-<variant>.json   the codes, with their bits
      <image>.<method>-<variant>.png    the image beside its reconstructions
    and shows the second in the terminal, if that can.

    \b
      tokenmark tokenize photo.jpg --method one-d-piece --tokens 1,2,4,16
      tokenmark tokenize photo.jpg --method titok --variant l32 --weights ~/titok_l32/model.safetensors
    """  # noqa: D301  click's own sign: lines that follow are not joined
    from tokenmark import choice, inline, look, tables  # noqa: PLC0415  the engine takes seconds to import
    from tokenmark.bench import device_of  # noqa: PLC0415
    from tokenmark.terminal import console  # noqa: PLC0415

    asked = [_length(part) for part in tokens.split(",") if part.strip()]
    place = device_of(device)
    chosen = choice.tokenizer(method, variant, weights, place)
    name = f"{method}/{chosen.variant}"
    picture = look.read(image, chosen.tokenizer.info.image_size).to(place)
    told = None if chosen.tokenizer.info.text is None else _told(method, text, weights, place)
    lengths = look.lengths_of(chosen.tokenizer, asked)
    seen = look.through(chosen.tokenizer, picture, lengths, seed, told)
    facts = {"method": method, "variant": chosen.variant, "weights_sha256": chosen.sha256, "image": image.name}
    stem = f"{image.stem}.{name.replace('/', '-')}"
    written = look.write(output, stem, {**facts, "crop": look.CROP, "seed": seed}, picture, seen)
    inline.show(look.sheet(picture, seen), console())
    tables.print_rows(f"{name} on {image.name}", [each.row for each in seen])
    for path in written:
        click.echo(path)


def _length(text: str) -> int:
    if not text.strip().isdecimal():
        raise MethodError(f"--tokens: '{text.strip()}' is not a number of tokens; write 1,4,16")
    return int(text)


def _told(method: str, text: str, weights: Path | None, device: "torch.device") -> "Tensor":
    from tokenmark import registry, texts  # noqa: PLC0415  open_clip takes seconds, and few tokenizers need it
    from tokenmark.contracts import TokenizerMethod  # noqa: PLC0415
    from tokenmark.shelf import Shelf  # noqa: PLC0415

    if not text:
        raise MethodError(f"{method} is told in words what the picture shows: give --text 'A photo of a ...'")
    shelf = Shelf(weights) if weights is not None and weights.is_dir() else Shelf()
    return texts.load(registry.get_as(TokenizerMethod, method).text, device, shelf).of([text])
