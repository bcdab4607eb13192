"""`nox -s bench-reduction`: how much of their promised speed-up token reducers keep, beside fused attention.

Also the two pieces on which that hangs, alone: merging, and attention with token sizes.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import click
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from benchmarks import report
from benchmarks.measures import Contenders, rows
from reference_impls.layers.reduction import Matching, TokenState, merge
from reference_impls.layers.vit_attention import mix, with_size_channels
from tokenmark import backbones, budgets, build, speedsuite
from tokenmark.measures.throughput import Timed, Timing, measure

LIBRARIES = ("torch", "timm")
CASES = ("deit_small_patch16_224:tome.r=13", "deit_base_patch16_224:tome.r=16", "vit_large_patch16_224:tome.r=8")
TEXT = """
Each reducer takes turns in one process with the unreduced model: attention written out, fused, and both through
torch.compile where that is asked for. *Promised* is the unreduced model's MACs over the reduced one's, *kept* is the
speed-up over the fastest unreduced model as a share of it: to be 85 % at least. Papers compare with attention written
out, which is the column *vs eager*. Weights and images are random: the work is the same.
"""
PIECES = """
The pieces alone, of one block of DeiT-S (197 tokens, 384 channels, 6 heads; 13 are merged). *Merging* is one gather and
one addition of rows, beside gathers and a scatter for every channel. *Attention with sizes* takes the logarithm of a
token's size as a float mask on a processor, and on a GPU, whose flash kernel takes no mask, in extra key channels; it
stands beside the other of the two.
"""
HEADS, WIDTH, TOKENS, MERGED = 6, 64, 197, 13


def plain_merge(x: Tensor, size: Tensor, matching: Matching) -> Tensor:
    """The weighted mean as ToMe's paper has it (section 3): gathers and a scatter with an index for every channel."""
    weighted = x * size[..., None]
    into = matching.into[..., None].expand(-1, -1, x.shape[2])
    kept, merged = (
        weighted.gather(1, i[..., None].expand(-1, -1, x.shape[2])) for i in (matching.kept, matching.merged)
    )
    total = size.gather(1, matching.kept).scatter_add(1, matching.into, size.gather(1, matching.merged))
    return kept.scatter_add(1, into, merged) / total[..., None]


def pieces(batch: int, device: torch.device, dtype: torch.dtype) -> list[tuple[str, Contenders, Tensor]]:
    """Name, contenders and input of every piece."""
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(batch, TOKENS, generator=generator).argsort(dim=1)
    into = torch.randint(TOKENS - MERGED, (batch, MERGED), generator=generator)
    found = (order[:, MERGED:].sort(dim=1).values, order[:, :MERGED], into)
    matching = Matching(*(index.to(device) for index in found))
    size = torch.randint(1, 9, (batch, TOKENS), generator=generator).float().to(device)
    x = torch.randn(batch, TOKENS, HEADS * WIDTH, generator=generator).to(device, dtype)
    merging: Contenders = {
        "tokenmark": lambda given: merge(TokenState(given, size), matching).x,
        "a scatter for every channel": lambda given: plain_merge(given, size, matching).to(given.dtype),
    }
    heads = torch.randn(batch, HEADS, TOKENS, WIDTH, generator=generator).to(device, dtype)
    mask = size.log()[:, None, None, :].to(dtype)
    plain = SimpleNamespace(scale=WIDTH**-0.5, dropout=0.0)

    def channels(given: Tensor) -> Tensor:
        wider = with_size_channels(given, given, given, size, WIDTH**-0.5)
        return scaled_dot_product_attention(*wider, scale=WIDTH**-0.5)[..., :WIDTH]

    def masked(given: Tensor) -> Tensor:
        return scaled_dot_product_attention(given, given, given, attn_mask=mask, scale=WIDTH**-0.5)

    def ours(given: Tensor) -> Tensor:
        return mix(plain, (given, given, given), size, None, "fused")[0]

    other: Contenders = {"key channels": channels} if device.type == "cpu" else {"a float mask": masked}
    attention: Contenders = {"tokenmark": ours, **other}
    return [
        (f"merging {MERGED} of {TOKENS} tokens, {batch} images", merging, x),
        (f"attention with sizes, {batch} images", attention, heads),
    ]


def contenders(model: nn.Module, method: str, settings: dict[str, Any], *, compiled: bool) -> Contenders:
    """The reduced model, and the unreduced one with attention written out and fused; compiled ones beside them."""
    reduced = cast("nn.Module", build.reduced(method, model, settings)).eval()
    found: dict[str, Callable[[Tensor], Tensor]] = {
        "reduced": reduced,
        "eager": cast("nn.Module", build.reduced("none", model, {}, attention="eager")).eval(),
        "fused": model,
    }
    if compiled:
        torch._dynamo.reset()
        found["reduced, compiled"] = torch.compile(reduced, dynamic=False)
        found["fused, compiled"] = torch.compile(model, dynamic=False)
    return found


def row(name: str, timed: Timed, promised: float) -> tuple[str, ...]:
    """Of one case: the fastest form of the reduced model over the fastest unreduced one."""
    ours = max((each for each in timed.seconds if each.startswith("reduced")), key=timed.images_per_second)
    best = max((each for each in timed.seconds if each.startswith("fused")), key=timed.images_per_second)
    ratio, (low, high) = timed.speedup(ours, best)
    return (
        f"{name}, batch {timed.batch}",
        f"{timed.images_per_second(ours):,.1f}",
        f"{promised:.2f}",
        f"{ratio:.2f}",
        f"{low:.2f} to {high:.2f}",
        f"{100 * ratio / promised:.0f} %",
        f"{timed.speedup(ours, 'eager')[0]:.2f}",
    )


def measured(
    cases: list[str], batch: int, timing: Timing, device: torch.device, dtype: torch.dtype, *, compiled: bool
) -> list[tuple[str, ...]]:
    """A row per case; the head first."""
    found: list[tuple[str, ...]] = [("", "images/s", "promised", "vs best", "95 %", "kept", "vs eager")]
    for case in cases:
        name, _, setting = case.partition(":")
        method = setting.partition(".")[0]
        settings = speedsuite.settings_of([setting], [method])[method] if "." in setting else {}
        settings = {**budgets.usual(method, backbones.drawn(name)), **settings}
        cost = budgets.cost(method, backbones.drawn(name), settings)
        model = backbones.load(backbones.drawn(name), device, dtype)
        shape = backbones.get(backbones.drawn(name)).shape
        images = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)
        who = contenders(model, method, settings, compiled=compiled)
        with torch.inference_mode():
            for call in who.values():
                call(images)  # compiles, and is not timed
        found.append(row(case.replace(":", ", "), measure(who, images, timing), cost.full / cost.total))
        click.echo(" | ".join(found[-1]), err=True)
    return found


@click.command()
@click.option("--cases", default=",".join(CASES), show_default=True, help="model:method.setting=value, by commas.")
@click.option("--batch", default=8, show_default=True, help="Images of a call.")
@click.option("--rounds", default=9, show_default=True, help="Turns that every contender takes.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@click.option("--compiled/--not-compiled", default=True, show_default=True, help="Time compiled models too.")
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--output", default=report.PAGE, show_default=True, type=click.Path(path_type=Path))
def main(cases: str, batch: int, rounds: int, precision: str, compiled: bool, device: str, output: Path) -> None:
    """Time, print the tables, and write them into docs/measured.md."""
    place, dtype = torch.device(device), getattr(torch, precision)
    timing = Timing(min_seconds=0.0, min_rounds=rounds, warm_seconds=0.0, max_warm_seconds=0.0)
    shown = report.table(measured(cases.split(","), batch, timing, place, dtype, compiled=compiled))
    found: list[tuple[str, ...]] = [("", "tokenmark", "rival", "times faster", "95 %", "largest difference")]
    with torch.inference_mode():
        for name, who, given in pieces(batch, place, dtype):
            found += rows(name, who, given, timing)
    alone = report.table(found)
    where = f"`{report.command('reduction')}` on {report.machine(place, LIBRARIES)}, {precision}."
    text = f"## Token reduction\n\n{where}\n{TEXT}\n{shown}\n{PIECES}\n{alone}\n"
    report.write_section("reduction", text, output)
    click.echo(f"{shown}\n\n{alone}")


if __name__ == "__main__":
    main()
