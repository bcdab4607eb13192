"""What a method file declares as `METHOD`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tokenmark.contracts.reduction import ReducedModel
from tokenmark.contracts.releases import Layout, Paper, Variant
from tokenmark.contracts.tokens import Generator, Tokenizer

AS_IT_IS = Layout()
"""A checkpoint whose keys are the module's."""


@dataclass(frozen=True, slots=True)
class NoSettings:
    """The settings of a method that has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """What every method file declares as `METHOD`: its id, its source and what it is about."""

    id: str
    """Kebab-case, the same as the file's name with `-` for `_`. One name, one algorithm."""
    title: str
    idea: str
    """The idea in one line."""
    paper: Paper
    settings: type = NoSettings
    """A frozen dataclass of the knobs that a suite may set."""
    layout: Layout = AS_IT_IS
    """How the release's checkpoints hold it, and what its keys are called in the module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerMethod(Method):
    """A tokenizer: `build(**variant.config)` gives an `nn.Module` that is a `Tokenizer`."""

    build: Callable[..., Tokenizer]
    variants: Mapping[str, Variant]
    text: str = ""
    """For decoders that are told what the image shows: the network that reads the text (see `tokenmark.texts`)."""
    from_release: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    """The arguments of `build` for a release's own configuration file, read as data; None where it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A sampler's settings by name, and how the images of the number that was published with them were drawn.

    What is empty its source leaves open. Seeds and processes are told, not followed: here every image has noise of its
    own, so that none depends on how many processes there were.
    """

    settings: Any
    """What `sample` is called with: an instance of the method's `settings`."""
    variants: tuple[str, ...]
    """The variants that it is for; a run of another is an error."""
    classes: Literal["cycled", "sorted", "random", ""] = ""
    """What images are asked for: `cycled`, class after class and again; `sorted`, all of a class, then the next's;
    `random`, drawn. Empty: as the protocol says."""
    seed: str = ""
    """The source's rule in a few words: `42 + rank`."""
    world_size: int | None = None
    """Processes of the published run."""
    batch_size: int | None = None
    """Images at once in each of them."""
    printed: str = ""
    """Where a number is printed that was measured so, and the number: `README_TiTok.md: gFID 2.77`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorMethod(Method):
    """A generator: `build(tokenizer, **variant.config)` gives an `nn.Module` that is a `Generator`."""

    build: Callable[..., Generator]
    variants: Mapping[str, Variant]
    presets: Mapping[str, Preset]
    """The sampler's settings by names of their own in all methods: `titok-l32-paper`."""
    text: str = ""
    """For generators that are told in words what to draw: the network that reads them (see `tokenmark.texts`)."""


@dataclass(frozen=True, slots=True)
class Knob:
    """The setting of a reducer that moves its cost."""

    setting: str
    values: Literal["count", "rate"] | tuple[Any, ...]
    """`count`: tokens that go, from 0 to all patches; `rate`: what is kept, above 0 to 1; or the values that there
    are, from the dearest to the cheapest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionReducerMethod(Method):
    """A reducer of the tokens of a diffusion network while it samples.

    `reduce(network, settings)` gives a network of the same kind (a generator, where it was one), on the same weights;
    the given one stays as it was, unreduced: the control.

    Raises UnsupportedBackboneError where the network has no tokens that can be reduced, BudgetError where the settings
    ask for what cannot be given.
    """

    reduce: Callable[[Any, Any], Any]
    acts: str = ""
    """Where it acts, in a few words: `every block, around attention`."""
    knob: Knob | None = None
    """None where nothing moves the cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReducerMethod(Method):
    """A reducer: `build(model, settings)` gives a `ReducedModel` and leaves `model` as it was.

    `attention="eager"` writes every attention matrix out, for counters and for comparison.

    Raises UnsupportedBackboneError where the backbone cannot be served, BudgetError where the budget is impossible.
    """

    build: Callable[..., ReducedModel]
    reduction: Any = None
    """What acts between the pieces of a block, where the reducers' own driver runs it."""
    acts: str = ""
    """Where it acts, in a few words: `every block, after attention`."""
    knob: Knob | None = None
    """None where nothing moves the cost."""
    trained: bool = False
    """Whether it has weights of its own, or is of no use without fine-tuning: it has no accuracy off the shelf."""
    variants: Mapping[str, Variant] = field(default_factory=dict)
    """Fine-tuned checkpoints by name: `config` has the classifier's name as `model`, and the `settings`."""
    in_sampler: DiffusionReducerMethod | None = None
    """The same algorithm in a diffusion sampler, under the same id; None where it has no place there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierMethod(Method):
    """A classifier that reduces tokens by its own architecture: `build(**variant.config)` gives an `nn.Module`.

    It takes images `(B, 3, H, W)`, normalised by `mean` and `std`, and gives logits `(B, classes)`; its `image_shape`
    says channels, height and width.
    """

    build: Callable[..., Any]
    variants: Mapping[str, Variant]
    acts: str = ""
    """Where it reduces, in a few words."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
