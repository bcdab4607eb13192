"""What a decoder is told in words, as features: CLIP's text tower by open_clip, and the classes' names.

TA-TiTok (arXiv 2501.07730) decodes with the text "A photo of a {class}.", the class being that of the image's own
label: whoever compares its numbers should know that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import open_clip
import torch
from open_clip.transformer import QuickGELU, TextTransformer
from torch import Tensor

from tokenmark import weights
from tokenmark.contracts import Release
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
    )
}


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
    read: dict[str, Tensor] = field(default_factory=dict)

    def of(self, texts: Sequence[str]) -> Tensor:
        """Features `(B, tokens, channels)` of texts, behind the last norm, before projection and pooling."""
        for text in set(texts) - set(self.read):
            self.read[text] = of_texts(self.network, [text])[0]
        return torch.stack([self.read[text] for text in texts])

    def of_classes(self, labels: Tensor) -> Tensor:
        """The same of what is said of ImageNet's classes, by their indices, int64 `(B,)`."""
        return self.of([prompt(label) for label in labels.tolist()])


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


def tower(architecture: str) -> TextTransformer:
    """The text side of an open_clip model with OpenAI's activation, weights drawn; it gives every token's features."""
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
        output_tokens=True,
    )


def of_texts(network: TextTransformer, texts: list[str]) -> Tensor:
    """Features `(B, tokens, channels)` behind the last norm, before projection and pooling."""
    place = network.positional_embedding.device
    with torch.inference_mode():
        features: Tensor = network(open_clip.tokenize(texts).to(place))[1]
    return features


def prompt(label: int) -> str:
    """What the release says of an image of a class; the names are OpenAI's, in the order of sorted WordNet ids."""
    if not 0 <= label < CLASSES:
        raise MethodError(f"no name is known of class {label}: this decoder is told ImageNet's {CLASSES} classes")
    return PROMPT.format(open_clip.IMAGENET_CLASSNAMES[label])
