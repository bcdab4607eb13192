"""docs/reducers.md and docs/backbones.md: every method of token reduction, and what it serves, by running it."""

import functools
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from recipes import small_vits
from recipes.zoo import row, table
from tokenmark import budgets, build, registry
from tokenmark.contracts import ClassifierMethod, MethodError, ReducerMethod, UnsupportedBackboneError
from tokenmark.measures.cost import counted_macs

VECTORS = "tests/vectors"
STANDARD = "deit_small_patch16_224.random"
BOUNDS = {torch.float64: 1e-12, torch.float32: 1e-5}
SYSTEMS = {
    "tome": ("tome__*", "tome-mae__*", "tome-swag__*"),
    "diffrate": ("diffrate__*", "diffrate-mae__*"),
    "pitome": ("pitome__*", "pitome-mae__*"),
    "dynamicvit": ("dynamicvit__deit*", "dynamicvit__lvvit*"),
    "dynamicvit-convnext": ("dynamicvit__convnext*",),
    "dynamicvit-swin": ("dynamicvit__swin*",),
}
"""Where vectors are not simply named by the method: several models of one, or several methods in one system."""
REDUCERS = """# Token reducers

Every method of token reduction that Tokenmark implements. `nox -s docs` writes this page from the methods
themselves; the tests hold it to them. `tokenmark cost MODEL --method M` says what a setting costs, block by block,
and finds the setting that fits a budget; [backbones](backbones.md) has the models that each serves.

*MACs* are of DeiT-S at 224 px (4.599 G unreduced), at the method's own default settings: what papers print as
GFLOPs, and in brackets what the method itself computes beside the model. *Knob* is the setting that a budget moves.
*Trained* methods have weights of their own, or are of no use without fine-tuning; the others take any checkpoint as
it is. *Parity*: how many recorded runs of the official release (in float64, every output to 1e-6) and how many
official checkpoints' key lists the implementation agrees with ([parity](parity.md)); where there is no release, the
method's file says what was read in the paper and what is a reading. No released weights were loaded here.

One name, one algorithm: *ToMe* in every block and *ToMe at 3-6-9* are two methods, as are the two ATS, EViT and
DynamicViT. `select-*` are the selection rules of vision-language models, applied once inside an image encoder: not
those systems. Compare methods at equal MACs, not at equal keep rates: `budget = ["3.0G"]` in a suite, `--macs 3.0G`
on the command line.
"""
CLASSIFIERS = """
## Classifiers

Methods that are an architecture of their own: nothing is reduced in another model. MACs are counted at the first
size's own resolution.


"""
BACKBONES = """# Backbones

One driver runs all [reducers](reducers.md). It takes a vision transformer apart (norms, projections, qk-norm, layer
scale, drop-path, prefix and register tokens, rotary embeddings, relative positions, pooling) and runs it piece by
piece, so that a method acts between the pieces. `nox -s docs` makes this page by running every method on every
family, at a small size with random values in every parameter; the tests hold it to that.

With nothing reduced the driver gives what the model gives. Largest difference of the class scores, over their
largest value, in float64 and in float32:


"""
MATRIX = """A model of any other type is refused by name, and so is a subclass, a compiled or a patched model: never run
as something that it is not. Swin and ConvNeXt, for example, have no tokens that could leave a grid.

In the table, a tick: it runs, and the tokens that enter every attention and MLP are those that the schedule
promised. A number: it is refused, for the reason below.


"""


def reducers_page(root: Path) -> str:
    """The whole of docs/reducers.md."""
    lines = [REDUCERS, *table(("method", "year", "idea", "acts", "knob", "trained", "MACs (G)", "parity"))]
    lines += [row(_reducer(method, root)) for method in _methods(ReducerMethod)]
    lines += ["", CLASSIFIERS.strip(), "", *table(("method", "year", "idea", "reduces", "sizes", "MACs (G)", "parity"))]
    lines += [row(_classifier(method, root)) for method in _methods(ClassifierMethod)]
    return "\n".join(lines) + "\n"


def _methods(kind: type) -> list[Any]:
    """All built-in ones of a kind, by year and title; the unreduced model first."""
    found = [registry.get(name) for name, place in registry.locations().items() if place.package == "reference_impls"]
    chosen = [method for method in found if isinstance(method, kind)]
    return sorted(chosen, key=lambda method: (method.id != "none", method.paper.year, method.title.lower()))


def _link(method: Any) -> str:
    return f"[{method.title}]({method.paper.url}) `{method.id}`"


def _reducer(method: ReducerMethod, root: Path) -> tuple[str, ...]:
    knob = f"`{method.knob.setting}`" if method.knob else ""
    trained = "yes" if method.trained else ""
    year = str(method.paper.year)
    return (_link(method), year, method.idea, method.acts, knob, trained, _cost(method), _parity(method.id, root))


def _cost(method: ReducerMethod) -> str:
    try:
        found = budgets.cost(method.id, STANDARD, {})
    except MethodError:  # nothing can be said without settings of the reader's own
        return ""
    most = "up to " if found.adaptive else ""
    return f"{most}{found.macs / 1e9:.3f} ({found.method / 1e9:.3f})"


def _classifier(method: ClassifierMethod, root: Path) -> tuple[str, ...]:
    first = next(iter(method.variants.values()))
    with torch.device("meta"):
        model = cast("Any", method.build(**first.config)).eval().requires_grad_(requires_grad=False)
        image = torch.empty(1, *model.image_shape)
    with sdpa_kernel(SDPBackend.MATH):
        macs = counted_macs(model, image)
    sizes = ", ".join(f"`{name}`" for name in method.variants)
    year = str(method.paper.year)
    return (_link(method), year, method.idea, method.acts, sizes, f"{macs / 1e9:.2f}", _parity(method.id, root))


def _parity(name: str, root: Path) -> str:
    patterns = SYSTEMS.get(name, (f"{name}__*",))
    files = [path for pattern in patterns for path in (root / VECTORS).glob(f"{pattern}.json")]
    lists = sum(path.name.endswith(".manifest.json") for path in files)
    runs = len(files) - lists
    parts = [f"{runs} run{'s' * (runs != 1)}"] * bool(runs)
    parts += [f"{lists} checkpoint{'s' * (lists != 1)}"] * bool(lists)
    return ", ".join(parts) or "no release"


def backbones_page() -> str:
    """The whole of docs/backbones.md."""
    lines = [BACKBONES.rstrip(), "", *table(("family", "for example", "float64", "float32"))]
    for title, (example, key) in small_vits.FAMILIES.items():
        lines.append(row((title, f"`{example}`" if example else "a module of ours", *_identity(key))))
    reasons: dict[str, int] = {}
    lines += ["", MATRIX.strip(), "", *table(("method", *small_vits.FAMILIES))]
    for method in _methods(ReducerMethod):
        cells = [_cell(method, key, reasons) for _, key in small_vits.FAMILIES.values()]
        lines.append(row((f"`{method.id}`", *cells)))
    lines += ["", *(f"{number}. {reason}" for reason, number in reasons.items())]
    return "\n".join(lines) + "\n"


@functools.cache
def _served(key: str) -> tuple[nn.Module, Tensor]:
    model = small_vits.served(key).requires_grad_(requires_grad=False)
    return model, small_vits.images_for(model, 1)


def _identity(key: str) -> tuple[str, str]:
    """What the driver changes where nothing is reduced."""
    found = []
    for dtype in (torch.float64, torch.float32):
        model, images = small_vits.served(key).to(dtype), _served(key)[1].to(dtype)
        with torch.no_grad():
            expected = model(images)
            got = cast("nn.Module", build.reduced("none", model, {}))(images)
        worst = float((got - expected).abs().max() / expected.abs().max())
        # the last bits differ from processor to processor, so a bound is told
        found.append(f"below {BOUNDS[dtype]:g}" if worst < BOUNDS[dtype] else f"{worst:.0e}")
    return found[0], found[1]


def _cell(method: ReducerMethod, key: str, reasons: dict[str, int]) -> str:
    """A tick, or the number of the reason why a method does not serve a model."""
    model, images = _served(key)
    try:
        reduced = small_vits.reduced(method, model)
    except UnsupportedBackboneError as error:
        return f"{reasons.setdefault(_general(str(error), method.id), len(reasons) + 1)}"
    with torch.no_grad():
        counts = reduced.counts(images)
        finite = bool(reduced(images).isfinite().all())
    promised = torch.tensor([[block.attention, block.mlp] for block in reduced.schedule])
    kept = bool((counts <= promised).all() if reduced.adaptive else (counts == promised).all())
    return "✓" if finite and kept else "✗"


def _general(reason: str, method: str) -> str:
    """A reason without the method's name."""
    text = reason.removeprefix(method).strip()
    return text[:1].upper() + text[1:]
