"""LlamaGen's class-conditional generators: Llama's transformer, one token of a grid after the other."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.class_generator import Watch
from reference_impls.layers.code_choice import drawn_code
from reference_impls.layers.llama_gpt import GridGpt
from reference_impls.layers.noise import Noise
from tokenmark.contracts import GeneratorMethod, Layout, MethodError, Paper, Preset, Release, Tokenizer, Variant

__all__ = ["METHOD", "LlamaGenGpt", "LlamaGenSettings", "build", "release_arguments"]


@dataclass(frozen=True, slots=True)
class LlamaGenSettings:
    """What a sampling run may choose (autoregressive/models/generate.py and sample_c2i_ddp.py)."""

    cfg_scale: float = 2.0
    """The s of `uncond + s (cond - uncond)`; no guidance unless it is above 1."""
    temperature: float = 1.0
    """What guided logits are divided by."""
    top_k: int = 0
    """How many of the likeliest codes are drawn from; 0 for all."""
    top_p: float = 1.0
    """Probability of the nucleus that is drawn from, of those that top_k leaves; 1 for all."""
    cfg_interval: int = -1
    """Tokens behind the second, counted from 0, up to which there is guidance; -1 for all tokens."""
    greedy: bool = False
    """Take the likeliest code and draw nothing."""
    image_size: int = 0
    """Side to which images are resized (bicubic, without antialiasing); 0 leaves them as they are decoded.

    The release scores images of 384 pixels at 256. It resizes before pixels are clamped to [0, 1], here both sides
    are clamped.
    """

    def __post_init__(self) -> None:
        if not 0.0 <= self.cfg_scale < math.inf:
            raise MethodError(f"cfg_scale must be a number from 0 on, got {self.cfg_scale}")
        if not 0.0 < self.temperature < math.inf:
            raise MethodError(f"temperature must be above 0, got {self.temperature}; greedy=True draws nothing")
        if self.top_k < 0:
            raise MethodError(f"top_k must be 0 (all codes) or more, got {self.top_k}")
        if not 0.0 < self.top_p <= 1.0:
            raise MethodError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.cfg_interval < -1:
            raise MethodError(f"cfg_interval must be -1 (guide all tokens) or more, got {self.cfg_interval}")
        if self.image_size < 0:
            raise MethodError(f"image_size must be 0 (as decoded) or more, got {self.image_size}")

    def scale(self, position: int) -> float:
        """Guidance scale of a token's position, counted from 0."""
        if self.cfg_scale <= 1.0:
            return 1.0
        # The first token comes with the class and is always guided; the release counts the others from 0.
        beyond = position > 0 and -1 < self.cfg_interval < position - 1
        return 1.0 if beyond else self.cfg_scale


class LlamaGenGpt(GridGpt):
    """LlamaGen's transformer (arXiv 2406.06525, section 2.2).

    Args:
        vocab_size: Number of codes.
        network: As `GridGpt` takes them.
    """

    def __init__(self, *, dim: int, vocab_size: int, **network: Any) -> None:
        super().__init__(dim=dim, **network)
        self.vocab_size = vocab_size
        self.tok_embeddings = nn.Embedding(vocab_size, dim)
        self.output = nn.Linear(dim, vocab_size, bias=False)

    @property
    def written(self) -> tuple[int, tuple[int, ...]]:
        """Tokens of an image, and their codes."""
        return self.length, (self.vocab_size,)

    def embedded(self, codes: Tensor) -> Tensor:
        """Codes `(B, n)` as rows `(B, n, D)`."""
        rows: Tensor = self.tok_embeddings(codes)
        return rows

    def scores(self, hidden: Tensor) -> Tensor:
        """Logits `(B, n, K)` of normed rows `(B, n, D)`."""
        logits: Tensor = self.output(hidden)
        return logits

    @torch.no_grad()
    def generate(self, labels: Tensor, settings: LlamaGenSettings, noise: Noise, watch: Watch) -> Tensor:
        """Codes `(B, L)` for `labels` `(B,)`."""

        def choose(logits: Tensor, step: int) -> Tensor:
            if settings.greedy:
                return logits.argmax(-1)
            uniform = noise.uniform("tokens", step, self.vocab_size)
            return drawn_code(
                logits, uniform, temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p
            )

        return self.write(labels, [settings.scale(step) for step in range(self.length)], choose, watch)

    def draw(self, labels: Tensor, noise: Noise, settings: LlamaGenSettings, watch: Watch) -> Tensor:
        """Images `(B, 3, S, S)` in [0, 1] from given noise."""
        images = super().draw(labels, noise, settings, watch)
        if settings.image_size in (0, images.shape[-1]) or not len(images):
            return images
        size = (settings.image_size, settings.image_size)
        return functional.interpolate(images, size=size, mode="bicubic").clamp(0.0, 1.0)


def build(tokenizer: Tokenizer | None, *, vocab_size: int, block_size: int, **network: Any) -> LlamaGenGpt:
    """A generator that writes for `tokenizer`; sizes are named as in the release's `ModelArgs`.

    Raises MethodError if the tokenizer does not read the codes that these sizes write.
    """
    generator = LlamaGenGpt(vocab_size=vocab_size, block_size=block_size, **network)
    generator.attach(tokenizer)
    return generator


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `build`, without its tokenizer, for the release's `ModelArgs`.

    Raises MethodError for the generators that are told in text what to show.
    """
    if config.get("model_type", "c2i") != "c2i":
        raise MethodError(f"only generators by class (c2i) are read, got model_type {config['model_type']}")
    names = ("dim", "n_layer", "n_head", "block_size", "vocab_size", "num_classes", "multiple_of", "rope_base")
    return {name: config[name] for name in names if name in config}


SIZES: Mapping[str, tuple[int, int, int]] = {
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "XL": (1280, 36, 20),
    "XXL": (1536, 48, 24),
    "3B": (3200, 24, 32),
}
"""Width, blocks and heads."""


def _variant(size: str, image_size: int) -> Variant:
    dim, n_layer, n_head = SIZES[size]
    sizes = {"dim": dim, "n_layer": n_layer, "n_head": n_head, "block_size": (image_size // 16) ** 2}
    return Variant(
        config={**sizes, "vocab_size": 16384, "num_classes": 1000},
        tokenizer="llamagen-vq/vq-16" if image_size == 256 else f"llamagen-vq/vq-16-{image_size}",
        release=Release("FoundationVision/LlamaGen", f"c2i_{size}_{image_size}.pt", licence="MIT"),
    )


MINI_CONFIG: Mapping[str, Any] = {
    "dim": 64,
    "n_layer": 4,
    "n_head": 4,
    "block_size": 64,
    "vocab_size": 256,
    "num_classes": 10,
    "multiple_of": 32,
}
"""A size that trains on a processor."""


def _row(variant: str, gfid: str, cfg_scale: float) -> Preset:
    """A row of the release's table; its script runs on 8 GPUs, and scores all sizes at 256 pixels."""
    return Preset(
        settings=LlamaGenSettings(cfg_scale=cfg_scale, image_size=0 if variant.endswith("-256") else 256),
        variants=(variant,),
        classes="random",
        seed="0 * processes + rank",
        world_size=8,
        batch_size=32,
        printed=f"README.md of FoundationVision/LlamaGen: gFID {gfid}",
    )


METHOD = GeneratorMethod(
    id="llamagen-gpt",
    title="LlamaGen",
    idea="Llama, left as it is, over a grid of codes: the next token of an image, row by row",
    paper=Paper(
        title="Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation",
        authors="Peize Sun, Yi Jiang, Shoufa Chen, Shilong Zhang, Bingyue Peng, Ping Luo, Zehuan Yuan",
        year=2024,
        url="https://arxiv.org/abs/2406.06525",
    ),
    settings=LlamaGenSettings,
    build=build,
    # The largest two come from FSDP and are bare; a table of rotary positions may lie beside the weights.
    layout=Layout(wrappers=("model", "module", "state_dict"), ignored=("freqs_cis",)),
    variants={
        "b-256": _variant("B", 256),
        "b-384": _variant("B", 384),
        "l-256": _variant("L", 256),
        "l-384": _variant("L", 384),
        "xl-384": _variant("XL", 384),
        "xxl-384": _variant("XXL", 384),
        "3b-384": _variant("3B", 384),
        "mini": Variant(
            config=MINI_CONFIG,
            weights="llamagen-gpt-mini",
            tokenizer="maskgit-vq/mini",
            note="32x32 images of 10 classes, trained in this repository",
        ),
    },
    presets={
        "llamagen-b-256-paper": _row("b-256", "5.46", 2.0),
        "llamagen-b-384-paper": _row("b-384", "6.09", 2.0),
        "llamagen-l-256-paper": _row("l-256", "3.80", 2.0),
        "llamagen-l-384-paper": _row("l-384", "3.07", 2.0),
        "llamagen-xl-384-paper": _row("xl-384", "2.62", 1.75),
        "llamagen-xxl-384-paper": _row("xxl-384", "2.34", 1.75),
        "llamagen-3b-384-paper": _row("3b-384", "2.18", 1.65),
        "llamagen-mini": Preset(settings=LlamaGenSettings(cfg_scale=2.0), variants=("mini",)),
    },
)
