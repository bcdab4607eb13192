"""Zero-shot classifiers: open_clip's image towers, with classes that its text towers read from prompts.

`clip:ViT-B-16/openai` is open_clip's architecture and tag; `clip:ViT-B-16/random` has drawn weights, for speed alone.
The classes are ImageNet's 1,000 by OpenAI's names, each the mean of its 80 prompts (Radford et al. 2021, section
3.1.4), embedded once and kept on the shelf under a hash of the weights and of every prompt.
"""

import functools
import logging
from typing import Any, cast

import open_clip
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from tokenmark import weights
from tokenmark.contracts import Release
from tokenmark.errors import MethodError, StorageError, UnknownNameError, WeightsError
from tokenmark.files import sha256_text
from tokenmark.shelf import Shelf

PREFIX = "clip:"
DRAWN = "random"
CLASSES = 1000
FILE = "open_clip_model.safetensors"
CACHE = "class-embeddings"


def parts(name: str) -> tuple[str, str]:
    """Architecture and tag of `clip:architecture/tag`.

    Raises:
        UnknownNameError: open_clip knows neither such an architecture nor such a tag of it.
        MethodError: no tag is named.
    """
    architecture, slash, tag = name.removeprefix(PREFIX).partition("/")
    known = open_clip.list_models()
    if architecture not in known:
        raise UnknownNameError("open_clip model", architecture, known)
    tags = [*open_clip.list_pretrained_tags_by_model(architecture), DRAWN]
    if not slash:
        raise MethodError(f"{name} does not say which weights: choose {', '.join(f'{name}/{each}' for each in tags)}")
    if tag not in tags:
        raise UnknownNameError(f"tag of {architecture}", tag, tags)
    return architecture, tag


def facts(name: str) -> dict[str, Any]:
    """What open_clip says of the published weights: `mean`, `std`, `hub` (None if it names none), `size`, `quick`."""
    architecture, tag = parts(name)
    config = {} if tag == DRAWN else open_clip.get_pretrained_cfg(architecture, tag)
    hub = str(config.get("hf_hub") or "").rstrip("/")
    return {
        "mean": tuple(config.get("mean") or open_clip.OPENAI_DATASET_MEAN),
        "std": tuple(config.get("std") or open_clip.OPENAI_DATASET_STD),
        "hub": hub or None,
        "size": int(open_clip.get_model_config(architecture)["vision_cfg"]["image_size"]),
        "quick": bool(config.get("quick_gelu")),
    }


def release(name: str) -> Release | None:
    """Where the weights were published; None for drawn ones.

    Raises:
        MethodError: open_clip names no file on the hub for them.
    """
    if parts(name)[1] == DRAWN:
        return None
    hub = facts(name)["hub"]
    if hub is None:
        raise MethodError(f"open_clip names no file on the hub for {name}: choose another tag")
    return Release(hub, FILE)


def blank(name: str) -> nn.Module:
    """Both towers without weights; on the meta device if that is where things are made."""
    device, quick = torch.get_default_device(), bool(facts(name)["quick"])
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)  # open_clip warns that it was given no weights, which is meant
    try:
        return cast("nn.Module", open_clip.create_model(parts(name)[0], device=device, force_quick_gelu=quick))
    finally:
        root.setLevel(before)


def image_tower(name: str) -> nn.Module:
    """The image tower alone, without weights."""
    return cast("nn.Module", blank(name).visual)


def load(name: str, shelf: Shelf) -> nn.Module:
    """Both towers with their published weights, on the processor.

    Raises:
        WeightsError: they are missing, altered or do not fit.
    """
    found = shelf.find(cast("Release", release(name)), name)
    model = blank(name)
    weights.load_strict(model, found.path)
    return model.eval()


class ClassHead(nn.Module):
    """Logits of image embeddings: scaled cosines with the classes' embeddings."""

    classes: Tensor

    def __init__(self, classes: Tensor, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("classes", classes, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Logits `(B, classes)` of embeddings `(B, D)`."""
        return self.scale * normalize(features.to(self.classes.dtype), dim=-1) @ self.classes


def head(name: str, shelf: Shelf, seed: int = 0) -> ClassHead:
    """The classes of a model; drawn ones for drawn weights.

    Raises:
        WeightsError: the published weights are missing, altered or do not fit.
    """
    if parts(name)[1] == DRAWN:
        width = int(open_clip.get_model_config(parts(name)[0])["embed_dim"])
        generator = torch.Generator().manual_seed(seed)
        return ClassHead(normalize(torch.randn(width, CLASSES, generator=generator), dim=0), 100.0)
    found = shelf.find(cast("Release", release(name)), name)
    kept = shelf.folder / CACHE / f"{sha256_text(found.sha256 + prompts_sha256())}.safetensors"
    if not kept.is_file():
        model = load(name, shelf)
        tensors = {"classes": embedded(model, name), "scale": cast("Any", model).logit_scale.detach().exp()}
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            save_file({key: value.contiguous() for key, value in tensors.items()}, kept)
        except OSError as error:
            raise StorageError(
                f"{kept} cannot be written ({error.strerror}): class embeddings are kept there"
            ) from error
    tensors = load_file(kept)
    if set(tensors) != {"classes", "scale"} or tensors["classes"].shape[-1] != CLASSES:
        raise WeightsError(f"{kept} does not hold class embeddings: delete it, and it is made again")
    return ClassHead(tensors["classes"], float(tensors["scale"]))


def embedded(model: nn.Module, name: str) -> Tensor:
    """Embeddings `(D, classes)`: of each class the normalised mean of its prompts' normalised embeddings."""
    tokenize = open_clip.get_tokenizer(parts(name)[0])
    found = []
    with torch.inference_mode():
        for texts in prompts():
            each = cast("Any", model).encode_text(tokenize(list(texts)), normalize=True)
            found.append(normalize(each.mean(dim=0), dim=-1))
    return torch.stack(found, dim=1).clone()


@functools.cache
def prompts() -> tuple[tuple[str, ...], ...]:
    """What is said of every class: OpenAI's 80 templates, filled with its name."""
    templates = open_clip.OPENAI_IMAGENET_TEMPLATES
    return tuple(tuple(template(name) for template in templates) for name in open_clip.IMAGENET_CLASSNAMES)


def prompts_sha256() -> str:
    """Hash of every prompt, in order."""
    return sha256_text("\n".join(text for texts in prompts() for text in texts))
