"""What a method offers to be measured. Everything that a method file imports from the engine is here.

Images are float32 `(B, 3, H, W)` in `[0, 1]` everywhere; a method's own normalisation is its own business.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tokenmark.errors import BudgetError, MethodError, UnsupportedBackboneError

__all__ = [
    "BlockCost",
    "BlockTokens",
    "BudgetError",
    "ClassifierMethod",
    "Generator",
    "GeneratorMethod",
    "Knob",
    "Layout",
    "Method",
    "MethodError",
    "NoSettings",
    "Paper",
    "Parity",
    "ParityCase",
    "Part",
    "ReducedModel",
    "ReducerMethod",
    "Release",
    "Tokenizer",
    "TokenizerInfo",
    "TokenizerMethod",
    "Tokens",
    "UnsupportedBackboneError",
    "Variant",
    "VitCost",
]


@dataclass(frozen=True, slots=True)
class Tokens:
    """What an encoder hands to its decoder: enough to store, to count and to decode.

    Exactly one of `codes` (int64, `(B, N)` or `(B, N, K)`) and `latents` (float, `(B, N, C)`) is set.
    `lengths` (int64, `(B,)`) counts the tokens of each image; `bits` (float64, `(B,)`) is their size.
    """

    lengths: Tensor
    bits: Tensor
    codes: Tensor | None = None
    latents: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.codes is None) == (self.latents is None):
            raise MethodError("Tokens hold either codes or latents: give exactly one of the two")


@dataclass(frozen=True, slots=True)
class TokenizerInfo:
    """What a tokenizer's code looks like, known before anything runs."""

    image_size: int
    """Side of the square images that it takes, in pixels."""
    max_tokens: int | None
    """The most tokens an image can take; None where the code has no bound (JPEG bytes)."""
    codebook_sizes: tuple[int, ...]
    """One size per codebook; empty for continuous latents."""
    bits_per_token: float
    variable_length: bool
    """Whether `encode(images, tokens=k)` can give a shorter code."""
    stochastic: bool
    """Whether `encode` draws noise, and so needs a `torch.Generator`."""
    parameters: int
    draws_to_decode: bool = False
    """Whether `decode` draws noise (flow and diffusion decoders), and so needs a `torch.Generator`."""
    text: tuple[int, int] | None = None
    """For a decoder that is told what the image shows: tokens and channels of the text features that it needs."""


@runtime_checkable
class Tokenizer(Protocol):
    """Images to tokens and back."""

    @property
    def info(self) -> TokenizerInfo:
        """The shape of the code."""
        ...

    def encode(self, images: Tensor, tokens: int | None = None, generator: torch.Generator | None = None) -> Tokens:
        """Encode `(B, 3, H, W)` images in [0, 1]; `tokens` asks for a shorter code (MethodError if it cannot)."""
        ...

    def decode(self, tokens: Tokens, generator: torch.Generator | None = None, text: Tensor | None = None) -> Tensor:
        """Give images `(B, 3, H, W)` clamped to [0, 1]; `info` says whether noise or text features are needed."""
        ...


@runtime_checkable
class Generator(Protocol):
    """Class labels to images."""

    def sample(self, labels: Tensor, generators: Sequence[torch.Generator], settings: Any) -> Tensor:
        """Images `(B, 3, H, W)` in [0, 1] for `labels` (int64, `(B,)`).

        Every image draws from its own generator, so that a sample does not depend on its batch.
        """
        ...

    @property
    def parameters_total(self) -> int:
        """Parameters of the generator itself, its tokenizer left out."""
        ...


@dataclass(frozen=True, slots=True)
class BlockTokens:
    """How many tokens (prefix tokens included) enter the attention and the MLP of one block."""

    attention: int
    mlp: int


@dataclass(frozen=True, slots=True)
class BlockCost:
    """Multiply-accumulates of one transformer block: norms, softmax and biases are not counted."""

    linear: int
    """Of attention's linear layers, for every token that enters attention."""
    pairs: int
    """Of both products of attention, for every pair of tokens that enter it."""
    mlp: int
    """Of the MLP, for every token that enters it."""


@dataclass(frozen=True, slots=True)
class VitCost:
    """Multiply-accumulates (MACs) of one image in a vision transformer, as a function of its token counts.

    What papers print as "GFLOPs": for a plain ViT P (3 p^2) D + sum over blocks of (4 N D^2 + 2 N^2 D + 8 N' D^2) + D
    classes, for P patches of p x p pixels, width D, and N tokens at attention, N' at the MLP.
    """

    embed: int
    blocks: tuple[BlockCost, ...]
    head: int
    head_per_token: int = 0
    """For every token that the last block hands to the head (attention pooling)."""

    def macs(self, schedule: Sequence[BlockTokens]) -> int:
        """MACs of one image whose tokens follow `schedule`, which has as many blocks."""
        total = self.embed + self.head + self.head_per_token * schedule[-1].mlp
        for block, tokens in zip(self.blocks, schedule, strict=True):
            total += block.linear * tokens.attention + block.pairs * tokens.attention**2 + block.mlp * tokens.mlp
        return total


@runtime_checkable
class ReducedModel(Protocol):
    """A classifier whose tokens are reduced: the same call as the model that it was made from."""

    @property
    def schedule(self) -> tuple[BlockTokens, ...]:
        """Token counts of every block, known before anything runs; the most there can be where images differ."""
        ...

    @property
    def cost(self) -> VitCost:
        """What the model costs, as a function of token counts."""
        ...

    @property
    def extra_macs(self) -> int:
        """MACs of one image that the method computes beside the model: predictors, similarities, mixing."""
        ...

    @property
    def adaptive(self) -> bool:
        """Whether images keep different numbers of tokens."""
        ...

    def counts(self, images: Tensor) -> Tensor:
        """How many tokens of each image enter every attention and every MLP, `(B, blocks, 2)` int64."""
        ...

    def __call__(self, images: Tensor) -> Tensor:
        """Logits `(B, classes)`."""
        ...


@dataclass(frozen=True, slots=True)
class Paper:
    """Where a method comes from."""

    title: str
    authors: str
    """Names in the paper's order, separated by commas."""
    year: int
    url: str

    @property
    def citation(self) -> str:
        """Family name of the first author, year and title."""
        names = self.authors.split(",")
        others = " et al." if len(names) > 1 else ""
        return f"{names[0].split()[-1]}{others} {self.year}, {self.title}"


@dataclass(frozen=True, slots=True)
class Release:
    """One file of weights that a method's authors published on the Hugging Face hub."""

    repo: str
    """As the hub names it: `owner/name`."""
    file: str = "model.safetensors"
    """Its path in the repository: safetensors, or what torch.save wrote of named tensors and nothing else."""
    revision: str | None = None
    """The commit that is meant, 40 hex digits; None where none is known."""
    sha256: str | None = None
    """Of the file at that commit; None where nobody could check it. Who downloads it then pins it first."""
    licence: str = ""

    @property
    def key(self) -> str:
        """The name under which pins and records hold it."""
        return f"{self.repo}/{self.file}"


@dataclass(frozen=True, slots=True)
class Part:
    """A network inside a tokenizer whose weights its release leaves out, for others have published them.

    The tokenizer takes them by `load_part(name, tensors)`, under the keys of that release, strictly; `draw_parts()`
    makes do with drawn ones, for its speed.
    """

    name: str
    """As `tokenmark weights` takes it."""
    release: Release


@dataclass(frozen=True, slots=True)
class Layout:
    """How a release's checkpoint holds a model: where its tensors lie, and what they are called.

    A file is read as data by these rules alone; nothing in it decides what is built.
    """

    wrappers: tuple[str, ...] = ()
    """Names under which the tensors may lie, the first that is there wins (`ema`, then `model`); none: at the top."""
    ignored: tuple[str, ...] = ()
    """Prefixes of keys that training left in the file and that the model has no use for (`loss.`)."""
    shadow: str = ""
    """Prefix of averaged weights that are to be taken in place of the plain ones, their names without dots
    (`model_ema.`: Lightning's LitEma)."""
    renames: tuple[tuple[str, str], ...] = ()
    """Regular expressions and what stands for their matches, applied one after the other: release's key to module's."""

    def module_key(self, key: str) -> str:
        """The module's name of a release's `key`."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key


@dataclass(frozen=True, slots=True)
class ParityCase:
    """What a parity vector asks of a method."""

    variant: str
    config: Mapping[str, Any]
    """The release's configuration, as data."""
    inputs: Mapping[str, Tensor]
    """By name; floats in float64."""
    wanted: tuple[str, ...]
    """Names of the recorded outputs, in the order in which they are compared."""
    fill: Callable[[Any], Any]
    """Makes a second module float64 and fills it by the vectors' rule under its own keys; gives it back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How a method is put beside its release: `PARITY` in `reference_impls/parity/<id>.py`."""

    build: Callable[[Mapping[str, Any], str], nn.Module]
    """The module that a release's configuration and variant describe; the method's layout maps the release's keys."""
    outputs: Callable[[Any, ParityCase], Mapping[str, Tensor]]
    """Every wanted output of the filled module, under the vector's name and in its shape; more do no harm."""
    optional: tuple[str, ...] = ()
    """Prefixes of the module's keys that training left in checkpoints, and that a vector may leave out."""
    layout: Layout | None = None
    """How the release's keys are called in the module; None: as the method of the same id says."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One named size of a method."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the architecture, as in the release's configuration."""
    weights: str | None = None
    """Name of a file in the package's `weights/` folder, without `.safetensors`; None if it has none there."""
    release: Release | None = None
    """Where its authors published its weights; nothing is downloaded unless somebody asks for it."""
    parts: tuple[Part, ...] = ()
    """What the release leaves out, and a run needs."""
    tokenizer: str | None = None
    """For a generator: the tokenizer it writes for, as `method/variant`."""
    note: str = ""


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
    layout: Layout = Layout()
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
class GeneratorMethod(Method):
    """A generator: `build(tokenizer, **variant.config)` gives an `nn.Module` that is a `Generator`."""

    build: Callable[..., Generator]
    variants: Mapping[str, Variant]
    presets: Mapping[str, Any]
    """Named `settings` of the sampler, as published."""


@dataclass(frozen=True, slots=True)
class Knob:
    """The setting of a reducer that moves its cost."""

    setting: str
    values: Literal["count", "rate"] | tuple[Any, ...]
    """`count`: tokens that go, from 0 to all patches; `rate`: what is kept, above 0 to 1; or the values that there
    are, from the dearest to the cheapest."""


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
