"""docs/generators.md: all generators and their presets, from the registry and the vectors that the tests run."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from recipes.zoo import licence, parity, place, row, span, table
from tokenmark import build, registry
from tokenmark.contracts import DiffusionReducerMethod, GeneratorMethod, Preset, ReducerMethod

HEAD = """# Generators

Every token generator that Tokenmark implements, with the settings under which its numbers were published. `nox -s docs`
writes this page from the methods themselves; the tests hold it to them. `tokenmark list` shows the papers, `tokenmark
weights METHOD` where weights are. No released weights were loaded here.

A gFID is a property of tokenizer, generator and sampler together. Here

- a **generator** is named with the tokenizer that it writes for (`variant`), and refuses any other whose code does not
  fit;
- a **preset** holds all that a sampler may choose, and in which order classes are asked for: *cycled* (0 to 999, and
  again), *sorted* (all images of a class, then the next) or *random*. Seeds, processes and batches of the published run
  are told and not followed: here every sample draws from a generator of its own, seeded by the run's seed and the
  sample's index. So any sample can be made again alone, and neither batch nor number of GPUs changes an image;
- a **protocol** holds the reference, the rounding to 8 bits and the feature network ([protocols](protocols.md)).

```console
$ nox -s tokenmark -- run generation-256 --methods titok-maskgit --weights hub --data /data/adm
$ nox -s tokenmark -- run generation-256 --methods titok-maskgit --weights hub --data /data/adm --keep 50000
$ nox -s tokenmark -- run generator-throughput --methods rar,dit
```

The first samples 50,000 images and streams them to gFID, sFID, Inception score, precision and recall; nothing is
written but the record, with steps, multiply-accumulates of one image and memory, and the first images as a grid. A run
that was killed goes on at the image where it was, to the same numbers. The second keeps the samples too, as
`results/samples/<run>.npz` (`arr_0` uint8, `arr_1` classes), which ADM's evaluator reads; it samples only what is not
kept yet. The third times generators at their official sizes with drawn weights; it needs no data, but a GPU.

*Parity*: how many recorded runs of the official release (forward passes and whole sampling runs with recorded noise, in
float64: the same tokens, latents to 1e-6) and how many official checkpoints' key lists the implementation agrees with.
What has no release is built from its paper; `-reading` in a name says that the paper leaves things open which had to be
chosen, and that no number of the paper's belongs to it.

"""
SIZES = """
## Sizes

*Parameters* are of the generator alone.

"""
PRESETS = """
## Presets

*Published run*: processes x batch, and the rule of its seeds, as far as the source says.

"""
REDUCERS = """
## Fewer tokens in diffusion

These act in the blocks of DiT, and of diffusers' U-Net and PixArt, through one hook
(`reference_impls/layers/sampler_hook.py`). A generation job names one with `reducer = "tomesd"`, and its settings with
`reducer_settings`; it is measured on the same classes and the same noise as the unreduced sampler, image by image
(PSNR, SSIM, LPIPS) beside gFID, because FID alone ranks wrongly here: merging half of the tokens has been published
with a *lower* FID than none.

"""


def page(root: Path) -> str:
    """The whole page."""
    methods = [method for method in _all() if isinstance(method, GeneratorMethod)]
    lines = [*table(("method", "year", "idea", "variants", "parameters", "weights", "parity"))]
    sizes = {method.id: _sizes(method) for method in methods}
    for method in sorted(methods, key=lambda method: (method.paper.year, method.id)):
        shown = [n for name, n in sizes[method.id].items() if method.variants[name].weights is None]
        link = f"[{method.title}]({method.paper.url}) `{method.id}`"
        millions = span([round(n / 1e6) for n in shown or sizes[method.id].values()])
        cells = (str(len(sizes[method.id])), f"{millions} M", licence(method.variants.values()), _parity(method, root))
        lines.append(row((link, str(method.paper.year), method.idea, *cells)))
    text = HEAD + "\n".join(lines) + "\n" + SIZES
    text += "\n".join(
        [*table(("variant", "writes for", "parameters", "weights", "note")), *_rows_of_sizes(methods, sizes)]
    )
    text += (
        "\n" + PRESETS + "\n".join([*table(HEADS), *(line for method in methods for line in _rows_of_presets(method))])
    )
    return text + "\n" + REDUCERS + "\n".join([*table(("reducer", "idea", "paper")), *_rows_of_reducers()]) + "\n"


SYSTEMS = {"tokenbridge-ar": ("tokenbridge__reduced_generator", "tokenbridge__tokenbridge_")}
"""Generators whose vectors have their tokenizer's name."""
HEADS = ("preset", "for", "settings", "classes", "published run", "printed")


def _parity(method: GeneratorMethod, root: Path) -> str:
    return parity(root, *SYSTEMS.get(method.id, (f"{method.id}__",)))


def _all() -> list[Any]:
    places = registry.locations().items()
    return [registry.get(name) for name, where in places if where.package == "reference_impls"]


def _sizes(method: GeneratorMethod) -> dict[str, int]:
    meta = torch.device("meta")
    found = {}
    for name, variant in method.variants.items():
        with meta:
            decoder = variant.tokenizer and build.drawn_tokenizer(*build.tokenizer_of(method, variant), meta)
            network = cast("nn.Module", method.build(decoder or None, **variant.config))
        found[name] = sum(parameter.numel() for parameter in network.parameters())
    return found


def _rows_of_sizes(methods: list[GeneratorMethod], sizes: dict[str, dict[str, int]]) -> Iterator[str]:
    for method in methods:
        for name, variant in method.variants.items():
            weights = "in the repository" if variant.weights is not None else place(variant)
            writes = f"`{variant.tokenizer}`" if variant.tokenizer else "no tokenizer here"
            yield row(
                (f"`{method.id}/{name}`", writes, f"{sizes[method.id][name] / 1e6:,.1f} M", weights, variant.note)
            )


def _rows_of_presets(method: GeneratorMethod) -> Iterator[str]:
    for name, preset in method.presets.items():
        told = _settings(preset)
        yield row((f"`{name}`", ", ".join(preset.variants), told, preset.classes, _run(preset), preset.printed))


def _settings(preset: Preset) -> str:
    names = [field.name for field in dataclasses.fields(preset.settings)]
    return ", ".join(f"{name} {_brief(getattr(preset.settings, name))}" for name in names)


def _brief(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _run(preset: Preset) -> str:
    size = " x ".join(f"{number:,}" for number in (preset.world_size, preset.batch_size) if number is not None)
    return ", ".join(part for part in (size, f"seed {preset.seed}" if preset.seed else "") if part)


def _rows_of_reducers() -> Iterator[str]:
    for method in _all():
        in_sampler = isinstance(method, ReducerMethod) and method.in_sampler is not None
        if in_sampler or isinstance(method, DiffusionReducerMethod):
            paper = f"[{method.paper.title}]({method.paper.url}), {method.paper.year}"
            yield row((f"`{method.id}`", method.idea, paper))
