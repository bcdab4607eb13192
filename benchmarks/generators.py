"""`nox -s bench-measures -- generators`: what each shortcut of a sampler saves, beside the same sampler without it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

import click
import torch
from torch import Tensor, nn

from benchmarks import report
from benchmarks.measures import Contenders, rows
from recipes.drawn import drawn
from reference_impls.generators.dit import DiT
from reference_impls.generators.lamamba_diff import LaMambaDiff
from reference_impls.generators.llamagen_gpt import LlamaGenGpt, LlamaGenSettings
from reference_impls.generators.rar import Rar, RarSettings
from reference_impls.layers import selective_scan
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.diffusion import guide
from reference_impls.layers.latent_diffusion import DiffusionSettings
from reference_impls.layers.masked_sampling import MaskedSampling, SamplerSettings
from reference_impls.layers.noise import Draws, drawn_by_race
from tokenmark import registry
from tokenmark.contracts import GeneratorMethod
from tokenmark.measures.throughput import Timing

LIBRARIES = ("torch",)
TEXT = """
Samplers with drawn weights, each beside itself without one shortcut, from the same noise; tokens are not decoded. *Keys
kept*: a step computes the keys and values of its own token alone, where without them it computes those of all tokens so
far again (as ELM's release does). *One call for both*: images with their class and without it go through the network
together, where otherwise it is called twice (as TiTok's release does). *Chunks side by side*: a selective scan of few
steps, where the recurrence has one for each of its places. A batch that fills the device gains little from the latter
two, whose work is the same: they save calls.
"""


class Sized(NamedTuple):
    """What a generator is built of for a row of the table."""

    variant: str
    """Of its released size."""
    tiny: Mapping[str, Any]


SIZES: Mapping[str, Sized] = {
    "rar": Sized(
        "b",
        {
            "codebook_size": 256,
            "image_seq_len": 64,
            "condition_num_classes": 10,
            "hidden_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 256,
        },
    ),
    "llamagen-gpt": Sized(
        "b-256", {"dim": 64, "n_layer": 4, "n_head": 4, "block_size": 64, "vocab_size": 256, "num_classes": 10}
    ),
    "titok-maskgit": Sized(
        "l32",
        {
            "model_type": "ViT",
            "codebook_size": 256,
            "image_seq_len": 16,
            "condition_num_classes": 10,
            "hidden_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 256,
        },
    ),
    "dit": Sized("xl-2-256", {"input_size": 8, "hidden_size": 64, "depth": 4, "num_heads": 4, "num_classes": 10}),
    "lamamba-diff": Sized(
        "xl-256",
        {
            "input_size": 16,
            "dims": 16,
            "depths": (1, 1, 1, 1),
            "bottleneck_depth": 1,
            "num_classes": 10,
            "num_heads": (2, 2, 2, 2),
            "window_size": 4,
        },
    ),
}


Sampler: TypeAlias = Callable[[Tensor], Tensor]
"""Labels to what is drawn for them."""


class Shortcut(NamedTuple):
    """A row of the table: a sampler as it is, and without one thing."""

    method: str
    what: str
    without: str
    contenders: Callable[[Any, int, int], tuple[Sampler, Sampler]]
    """Of a generator, the first seed and the steps of samplers that have a choice: as it is, and without."""


def noise_for(labels: Tensor, seed: int) -> Draws:
    """Noise of every image from a seed of its own, the same at every call."""
    return Draws([torch.Generator().manual_seed(seed + row) for row in range(len(labels))], labels.device)


def shares(latents: Tensor) -> Tensor:
    """Latents over the largest of them, for drawn weights leave their size to chance."""
    return latents / latents.abs().max()


def rar(module: Rar, seed: int, _steps: int) -> tuple[Sampler, Sampler]:
    """With and without keys and values kept."""
    settings = RarSettings(cfg_scale=4.0, cfg_power=1.5)

    def again(labels: Tensor) -> Tensor:
        noise, both = noise_for(labels, seed), torch.cat([labels, torch.full_like(labels, module.classes)])
        codes = labels.new_empty(len(labels), 0)
        for step in range(module.image_seq_len):
            told, untold = module(codes.repeat(2, 1), both)[:, -1].float().chunk(2)
            logits = untold + settings.guidance(step, module.image_seq_len) * (told - untold)
            uniform = noise.uniform("tokens", step, module.codebook_size)
            codes = torch.cat([codes, drawn_by_race(logits.softmax(-1), uniform)[:, None]], dim=1)
        return codes

    return lambda labels: module.generate(labels, settings, noise_for(labels, seed), Watch()), again


def llamagen(module: LlamaGenGpt, seed: int, _steps: int) -> tuple[Sampler, Sampler]:
    """With and without keys and values kept."""
    settings = LlamaGenSettings(cfg_scale=2.0)

    def again(labels: Tensor) -> Tensor:
        noise, both = noise_for(labels, seed), torch.cat([labels, torch.full_like(labels, module.classes)])
        codes = labels.new_empty(len(labels), 0)
        for step in range(module.length):
            told, untold = module.logits(codes.repeat(2, 1), both)[:, -1].float().chunk(2)
            logits = untold + settings.cfg_scale * (told - untold)
            uniform = noise.uniform("tokens", step, module.vocab_size)
            codes = torch.cat([codes, drawn_by_race(logits.softmax(-1), uniform)[:, None]], dim=1)
        return codes

    return lambda labels: module.generate(labels, settings, noise_for(labels, seed), Watch()), again


class Replaced:
    """Something of an object, or of a module of functions, in another's place while a call lasts."""

    def __init__(self, owner: Any, name: str, other: Any) -> None:
        self._owner, self._name, self._other = owner, name, other

    def call(self, sampler: Sampler, labels: Tensor) -> Tensor:
        """What the sampler gives with it."""
        before = vars(self._owner).get(self._name)
        setattr(self._owner, self._name, self._other)
        try:
            return sampler(labels)
        finally:
            if before is None:
                delattr(self._owner, self._name)
            else:
                setattr(self._owner, self._name, before)


def titok(module: MaskedSampling, seed: int, steps: int) -> tuple[Sampler, Sampler]:
    """With one call for both halves, and with two."""
    settings = SamplerSettings(steps=steps, cfg_schedule="constant")

    def sampler(labels: Tensor) -> Tensor:
        return module.generate(labels, settings, noise_for(labels, seed), Watch())

    def apart(codes: Tensor, labels: Tensor, weight: float) -> Tensor:
        told, untold = (module.logits(codes, each) for each in (labels, torch.full_like(labels, module.classes)))
        return told + weight * (told - untold)

    other = Replaced(module, "_guided", apart)
    return sampler, lambda labels: other.call(sampler, labels)


def dit(module: DiT, seed: int, steps: int) -> tuple[Sampler, Sampler]:
    """With one call for both halves, and with two."""
    settings = DiffusionSettings(steps=steps, cfg_scale=1.5)

    def sampler(labels: Tensor) -> Tensor:
        return shares(module.generate(labels, settings, noise_for(labels, seed), Watch()))

    def apart(x: Tensor, times: Tensor, labels: Tensor, scale: float) -> Tensor:
        told, untold = (module(x, times, each).float() for each in (labels, torch.full_like(labels, module.classes)))
        return guide(told, untold, scale, module.guided_channels)

    other = Replaced(module, "guided", apart)
    return sampler, lambda labels: other.call(sampler, labels)


def lamamba(module: LaMambaDiff, seed: int, steps: int) -> tuple[Sampler, Sampler]:
    """With scans in chunks, and one place after the other."""
    settings = DiffusionSettings(steps=steps, cfg_scale=1.5)

    def sampler(labels: Tensor) -> Tensor:
        return shares(module.generate(labels, settings, noise_for(labels, seed), Watch()))

    other = Replaced(selective_scan, "linear_recurrence", selective_scan.one_by_one)
    return sampler, lambda labels: other.call(sampler, labels)


SHORTCUTS = (
    Shortcut("rar", "keys kept", "computing all again", rar),
    Shortcut("llamagen-gpt", "keys kept", "computing all again", llamagen),
    Shortcut("titok-maskgit", "one call for both", "two calls", titok),
    Shortcut("dit", "one call for both", "two calls", dit),
    Shortcut("lamamba-diff", "chunks side by side", "place after place", lamamba),
)


def built(name: str, device: torch.device, *, released: bool) -> Any:
    """A generator without a tokenizer, its weights drawn."""
    method = registry.get_as(GeneratorMethod, name)
    config = method.variants[SIZES[name].variant].config if released else SIZES[name].tiny
    module = cast("nn.Module", cast("Any", method.build)(None, **config))
    module.load_state_dict(drawn(module))
    return module.to(device).eval().requires_grad_(requires_grad=False)


@click.command(
    epilog="Example: `nox -s bench-measures -- generators --methods rar,dit --batch 8 --rounds 9`. Next to read: "
    "docs/measured.md, where the table goes."
)
@click.option("--methods", default=",".join(SIZES), show_default=True, help="Generators to time, separated by commas.")
@click.option("--batch", default=2, show_default=True, help="Images of a call; guidance doubles them.")
@click.option(
    "--steps", default=8, show_default=True, help="Steps of samplers that have a choice: all but the first two."
)
@click.option("--rounds", default=9, show_default=True, help="Turns that both contenders of a row take.")
@click.option(
    "--released/--tiny", default=False, show_default=True, help="Sizes as published; minutes to hours on a processor."
)
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
@click.option("--output", default=report.PAGE, show_default=True, type=click.Path(path_type=Path))
def main(methods: str, batch: int, steps: int, rounds: int, released: bool, device: str, output: Path) -> None:
    """Time every sampler with and without its shortcut, print the table, and write it into docs/measured.md.

    A row is one shortcut. Both contenders draw the same images from the same noise and take turns in one process, in an
    order drawn for each round. The ratio is that of their median times; its 95 % interval resamples rounds. The last
    column is the largest difference between what both give, tokens, or latents as shares of the largest: where it is
    more than rounding, the shortcut is wrong.
    """
    unknown = [name for name in methods.split(",") if name not in SIZES]
    if unknown:
        raise click.UsageError(f"no shortcut of '{unknown[0]}' is timed: choose among {', '.join(SIZES)}")
    place = torch.device(device)
    timing = Timing(min_seconds=0.0, min_rounds=rounds, warm_seconds=0.0, max_warm_seconds=0.0)
    found: list[tuple[str, ...]] = [("", "with it", "without", "times faster", "95 %", "largest difference")]
    for shortcut in (each for each in SHORTCUTS if each.method in methods.split(",")):
        module = built(shortcut.method, place, released=released)
        labels = torch.arange(batch, device=place) % module.classes
        ours, without = shortcut.contenders(module, 1, steps)
        who: Contenders = {"tokenmark": ours, shortcut.without: without}
        with torch.inference_mode():
            found += rows(f"{shortcut.method}, {shortcut.what}", who, labels, timing)
    shown = report.table(found)
    sizes = "sizes as released" if released else "tiny sizes"
    where = f"`{report.command('generators')}` on {report.machine(place, LIBRARIES)}; {sizes}, {batch} images a call."
    report.write_section("generators", f"## Generators\n\n{where}\n{TEXT}\n{shown}\n", output)
    click.echo(shown)


if __name__ == "__main__":
    main()
