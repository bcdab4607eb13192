"""`nox -s bench-measures -- tokenizers`: encoding and decoding beside the plain modules that ours stand for."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import click
import torch
from torch import Tensor, nn

from benchmarks import report
from benchmarks.measures import Contenders, rows
from reference_impls.layers import ldm_conv, titok_vit
from tokenmark import build
from tokenmark.contracts import Tokenizer
from tokenmark.measures.throughput import Timing

LIBRARIES = ("torch",)
SIZES = ("titok/s128", "llamagen-vq/vq-16", "mar-vae/kl16")
TEXT = """
Tokenizers of released sizes, weights drawn, beside copies whose attention is what releases write: torch's
`nn.MultiheadAttention` in the transformers of TiTok, and in the convolutional networks the matrix of all positions,
written out between two batched products. Ours keep convolutions channels-last, the plain ones as torch has them by
itself. None is to be slower: 1.0 is as fast. On a processor most of the time is in matrix products and convolutions
that both have; on a GPU the fused kernel also leaves the matrix unwritten.
"""


class PlainAttention(nn.Module):
    """`nn.MultiheadAttention` with the weights of ours."""

    def __init__(self, ours: titok_vit.Attention) -> None:
        super().__init__()
        width = ours.in_proj_weight.shape[1]
        self.attention = nn.MultiheadAttention(width, ours.heads, batch_first=True)
        self.attention.load_state_dict(ours.state_dict())

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(B, L, width)` to the same shape."""
        out: Tensor = self.attention(x, x, x, need_weights=False, attn_mask=mask)[0]
        return out


class PlainAttnBlock(nn.Module):
    """The attention of VQGAN as its release writes it: 1x1 convolutions, and the matrix in memory."""

    def __init__(self, ours: ldm_conv.AttnBlock) -> None:
        super().__init__()
        self.norm, self.q, self.k, self.v, self.proj_out = ours.norm, ours.q, ours.k, ours.v, ours.proj_out

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to the same shape."""
        normed = self.norm(x)
        query, key, value = (projection(normed).flatten(2) for projection in (self.q, self.k, self.v))
        weights = torch.bmm(query.transpose(1, 2), key) * x.shape[1] ** -0.5
        mixed = torch.bmm(value, weights.softmax(dim=2).transpose(1, 2))
        out: Tensor = x + self.proj_out(mixed.reshape(x.shape))
        return out


PLAIN: Mapping[type[nn.Module], Callable[..., nn.Module]] = {
    titok_vit.Attention: PlainAttention,
    ldm_conv.AttnBlock: PlainAttnBlock,
}


def plain(module: nn.Module) -> nn.Module:
    """A copy with plain attention, in torch's own memory order, and the same weights."""
    found = copy.deepcopy(module)
    for parent in list(found.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in PLAIN:
                setattr(parent, name, PLAIN[type(child)](child))
    return found.to(memory_format=torch.contiguous_format).eval().requires_grad_(requires_grad=False)


def contenders(tokenizer: Tokenizer, images: Tensor) -> tuple[Contenders, Contenders]:
    """Who encodes, and who decodes the tokens of `images`."""
    rival = cast("Tokenizer", plain(cast("nn.Module", tokenizer)))

    def noise() -> torch.Generator | None:
        return torch.Generator().manual_seed(0) if tokenizer.info.stochastic else None

    def encoded(by: Tokenizer, given: Tensor) -> Tensor:
        tokens = by.encode(given, None, noise())
        return tokens.latents if tokens.latents is not None else cast("Tensor", tokens.codes)

    tokens = tokenizer.encode(images, None, noise())
    both = {"tokenmark": tokenizer, "plain modules": rival}
    return (
        {name: lambda given, by=by: encoded(by, given) for name, by in both.items()},
        {name: lambda _given, by=by: by.decode(tokens) for name, by in both.items()},
    )


@click.command()
@click.option("--batch", default=2, show_default=True, help="Images of a call.")
@click.option("--rounds", default=7, show_default=True, help="Turns that every contender takes.")
@click.option("--sizes", default=",".join(SIZES), show_default=True, help="method/variant, separated by commas.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--output", default=report.PAGE, show_default=True, type=click.Path(path_type=Path))
def main(batch: int, rounds: int, sizes: str, device: str, output: Path) -> None:
    """Time, print the table, and write it into docs/measured.md."""
    place = torch.device(device)
    timing = Timing(min_seconds=0.0, min_rounds=rounds, warm_seconds=0.0, max_warm_seconds=0.0)
    found: list[tuple[str, ...]] = [("", "tokenmark", "plain", "times faster", "95 %", "largest difference")]
    for name in sizes.split(","):
        torch.manual_seed(0)
        tokenizer = build.drawn_tokenizer(*name.split("/", 1), place)
        side = tokenizer.info.image_size
        images = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(1)).to(place)
        with torch.inference_mode():
            for what, who in zip(("encode", "decode"), contenders(tokenizer, images), strict=True):
                found += rows(f"{name}, {what} {batch} images", who, images, timing)
    shown = report.table(found)
    where = f"`{report.command('tokenizers')}` on {report.machine(place, LIBRARIES)}."
    report.write_section("tokenizers", f"## Tokenizers\n\n{where}\n{TEXT}\n{shown}\n", output)
    click.echo(shown)


if __name__ == "__main__":
    main()
