"""What decoders and generators are told in words, as features: CLIP's text tower by open_clip, and the classes' names.

TA-TiTok (arXiv 2501.07730) decodes with the text "A photo of a {class}.", the class being that of the image's own
label: whoever compares its numbers should know that. Generators by text are told the same of the class that is asked
for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import open_clip
import torch
from open_clip.transformer import QuickGELU, TextTransformer
from torch import Tensor

from tokenmark import weights
from tokenmark.contracts import Prompts, Release
from tokenmark.errors import MethodError, chosen
from tokenmark.shelf import Shelf
from tokenmark.weights import Weights

CLIP = "clip-text-vit-l14-336"
PROMPT = "A photo of a {}."
CLASSES = 1000


@dataclass(frozen=True, slots=True)
class Tower:
    """A text network: its published weights, and its architecture in open_clip."""

    release: Release
    architecture: str


TOWERS = {
    CLIP: Tower(
        Release("timm/vit_large_patch14_clip_336.openai", "open_clip_model.safetensors", licence="MIT"),
        "ViT-L-14-336-quickgelu",
    ),
}


class Reading(NamedTuple):
    """What a network makes of texts."""

    states: Tensor
    """Of every token, behind the last norm, `(B, tokens, channels)`."""
    inner: Tensor
    """The same in front of the last block, `(B, tokens, channels)`."""
    pooled: Tensor
    """Of the end-of-text token, projected and not normalised, `(B, embedding)`."""


def check(name: str, shelf: Shelf | None = None) -> Weights:
    """The published weights of a text network, as they lie on the shelf.

    Raises:
        UnknownNameError: there is no such network here.
        WeightsError: they are missing or altered.
    """
    return (shelf or Shelf()).find(chosen("text network", name, TOWERS).release, name)


@dataclass(slots=True)
class Reader:
    """A text network with its weights; what it was told once it does not read again."""

    network: TextTransformer
    read: dict[str, Reading] = field(default_factory=dict)
    """Kept on the CPU, 0.5 MB for a text of ViT-L/14: that of all classes would fill half a gigabyte of a GPU."""

    def of(self, texts: Sequence[str]) -> Tensor:
        """Features `(B, tokens, channels)` of texts, behind the last norm, before projection and pooling."""
        return self._read(texts, ("states",))[0]

    def of_classes(self, labels: Tensor) -> Tensor:
        """The same of what is said of ImageNet's classes, by their indices, int64 `(B,)`."""
        return self.of([prompt(label) for label in labels.tolist()])

    def prompts_of_classes(self, labels: Tensor) -> Prompts:
        """What a generator is told of ImageNet's classes, by their indices, int64 `(B,)`, and of the empty text."""
        states, inner, pooled = self._read([prompt(label) for label in labels.tolist()])
        empty_states, empty_inner, empty_pooled = self._read([""])
        return Prompts(
            states=states,
            inner=inner,
            pooled=pooled,
            empty_states=empty_states,
            empty_inner=empty_inner,
            empty_pooled=empty_pooled,
        )

    def _read(self, texts: Sequence[str], parts: Sequence[str] = Reading._fields) -> list[Tensor]:
        """Those parts of what the network makes of `texts`, where it lies."""
        place = self.network.positional_embedding.device
        # One by one, so that a text's features do not depend on those beside it.
        for text in {"", *texts} - set(self.read):
            self.read[text] = Reading(*(part.cpu() for part in of_texts(self.network, [text])))
        found = []
        for part in parts:
            empty = getattr(self.read[""], part)[:0]
            found.append(torch.cat([empty, *(getattr(self.read[text], part) for text in texts)]).to(place))
        return found


def load(name: str, device: torch.device, shelf: Shelf | None = None) -> Reader:
    """A text network with its published weights.

    Raises:
        UnknownNameError: there is no such network here.
        WeightsError: its weights are missing, altered or do not fit.
    """
    found = check(name, shelf)
    network = tower(TOWERS[name].architecture)
    kept = {key: value for key, value in weights.read(found.path).items() if key in network.state_dict()}
    weights.fill_strict(network, kept, found.path)
    return Reader(network.to(device).eval().requires_grad_(requires_grad=False))


def drawn_prompts(name: str, n: int, device: torch.device) -> Prompts:
    """Zeros of the shapes that a network makes of `n` texts, for what needs no content; no weights are read.

    Raises:
        UnknownNameError: there is no such network here.
    """
    config = open_clip.get_model_config(chosen("text network", name, TOWERS).architecture)
    tokens, channels = config["text_cfg"]["context_length"], config["text_cfg"]["width"]

    def states(texts: int) -> Tensor:
        return torch.zeros(texts, tokens, channels, device=device)

    def pooled(texts: int) -> Tensor:
        return torch.zeros(texts, config["embed_dim"], device=device)

    return Prompts(
        states=states(n),
        inner=states(n),
        pooled=pooled(n),
        empty_states=states(1),
        empty_inner=states(1),
        empty_pooled=pooled(1),
    )


def tower(architecture: str) -> TextTransformer:
    """The text side of an open_clip model with OpenAI's activation, weights drawn."""
    config = open_clip.get_model_config(architecture)
    text = config["text_cfg"]
    return TextTransformer(
        context_length=text["context_length"],
        vocab_size=text["vocab_size"],
        width=text["width"],
        heads=text["heads"],
        layers=text["layers"],
        output_dim=config["embed_dim"],
        act_layer=QuickGELU,
    )


def of_texts(network: TextTransformer, texts: list[str]) -> Reading:
    """What the network makes of texts, where it lies."""
    tokens = open_clip.tokenize(texts).to(network.positional_embedding.device)
    with torch.inference_mode():
        found = network.forward_intermediates(tokens, indices=2, output_fmt="NLC")
        before, last = found["text_intermediates"]
        return Reading(network.ln_final(last), before, found["text_features"])


def prompt(label: int) -> str:
    """What the release says of an image of a class; the names are OpenAI's, in the order of sorted WordNet ids."""
    if not 0 <= label < CLASSES:
        raise MethodError(f"no name is known of class {label}: this decoder is told ImageNet's {CLASSES} classes")
    return PROMPT.format(open_clip.IMAGENET_CLASSNAMES[label])
