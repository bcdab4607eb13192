"""RAR: next-token prediction over MaskGIT-VQ's codes, trained in random orders that anneal to the raster."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reference_impls.layers.class_generator import Watch
from reference_impls.layers.code_generator import CodeGenerator
from reference_impls.layers.noise import Noise, drawn_by_race
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.rar_transformer import RarTransformer
from tokenmark.contracts import GeneratorMethod, MethodError, Paper, Preset, Release, Tokenizer, Variant

__all__ = ["METHOD", "Rar", "RarSettings", "build", "release_arguments"]


@dataclass(frozen=True, slots=True)
class RarSettings:
    """What a sampling run may choose (`generate`, modeling/rar.py of bytedance/1d-tokenizer)."""

    cfg_scale: float = 16.0
    """Guidance scale towards which the last steps go; 0 and 1 are none, and half the work."""
    cfg_power: float = 2.75
    """How late it grows; 0 is the whole scale from the first code on."""
    temperature: float = 1.0
    """What the guided logits are divided by."""

    def __post_init__(self) -> None:
        for name, least in (("cfg_scale", 0.0), ("cfg_power", 0.0)):
            if not least <= getattr(self, name) < math.inf:
                raise MethodError(f"{name} must be a number from 0 on, got {getattr(self, name)}")
        if not 0.0 < self.temperature < math.inf:
            raise MethodError(f"temperature must be a number above 0, got {self.temperature}")

    @property
    def guided(self) -> bool:
        """Whether the dropped class is asked too."""
        return self.cfg_scale not in (0.0, 1.0)

    def guidance(self, step: int, steps: int) -> float:
        """The s of `uncond + s (cond - uncond)` at a step counted from 0: a power-cosine schedule from 1 on.

        It never reaches the full scale, because it is evaluated at step / steps; but with power 0, 0^0 = 1.
        """
        done = (step / steps) ** self.cfg_power
        return 1.0 + (self.cfg_scale - 1.0) * (1.0 - math.cos(math.pi * done)) / 2.0


class Rar(RarTransformer, CodeGenerator):
    """The sampler around the transformer, which it is: the release stores its keys without a prefix."""

    @property
    def written(self) -> tuple[int, tuple[int, ...]]:
        """Tokens of an image, and their codes."""
        return self.image_seq_len, (self.codebook_size,)

    def steps(self, settings: RarSettings) -> int:  # noqa: ARG002  whatever is asked for, a code is written at a time
        """How often the network is called for a batch: once for every code."""
        return self.image_seq_len

    @torch.no_grad()
    def generate(self, labels: Tensor, settings: RarSettings, noise: Noise, watch: Watch) -> Tensor:
        """Codes `(B, L)` for `labels` `(B,)`, in raster order, from uniform noise `tokens` `(B, K)` of each step."""
        halves = 2 if settings.guided else 1
        dropped = torch.full_like(labels, self.classes)
        rows = self.begun(torch.cat([labels, dropped]) if settings.guided else labels)
        embedded, places, caches, start = rows[:, 1:], self.places(), self.caches(), 0
        codes: list[Tensor] = []
        for step in range(self.image_seq_len):
            logits = at_least_float32(self.next_logits(rows, embedded, places, start, caches))
            if settings.guided:
                conditional, unconditional = logits.chunk(2)
                scale = settings.guidance(step, self.image_seq_len)
                logits = unconditional + scale * (conditional - unconditional)
            probabilities = (watch.see(logits) / settings.temperature).softmax(-1)
            uniform = noise.uniform("tokens", step, self.codebook_size)
            codes.append(drawn_by_race(probabilities, uniform.to(probabilities)))
            start += rows.shape[1]
            rows = self.embeddings(codes[-1])[:, None].repeat(halves, 1, 1)
        return torch.stack(codes, dim=1)


def build(
    tokenizer: Tokenizer | None,
    *,
    codebook_size: int,
    image_seq_len: int,
    condition_num_classes: int,
    hidden_size: int,
    num_hidden_layers: int,
    num_attention_heads: int,
    intermediate_size: int,
) -> Rar:
    """A generator that writes for `tokenizer`; sizes are named as in the release's configuration.

    Without one it gives codes, but no images. Raises MethodError if the tokenizer does not read the codes that these
    sizes write, or if heads do not divide the width.
    """
    if hidden_size % num_attention_heads:
        raise MethodError(f"hidden_size must be a multiple of num_attention_heads, got {hidden_size}")
    generator = Rar(
        codebook_size=codebook_size,
        image_seq_len=image_seq_len,
        condition_num_classes=condition_num_classes,
        hidden_size=hidden_size,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=num_attention_heads,
        intermediate_size=intermediate_size,
    )
    generator.attach(tokenizer)
    return generator


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `build`, without its tokenizer, for a release's configuration tree."""
    model = config["model"]
    sizes = {name: value for name, value in model["generator"].items() if name not in ("dropout", "attn_drop")}
    return {"codebook_size": model["vq_model"]["codebook_size"], **sizes}


def _size(width: int, depth: int, hidden: int, file: str) -> Variant:
    config = {
        "codebook_size": 1024,
        "image_seq_len": 256,
        "condition_num_classes": 1000,
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": 16,
        "intermediate_size": hidden,
    }
    release = Release("yucornetto/RAR", file, licence="Apache-2.0")
    return Variant(config=config, tokenizer="maskgit-vq/imagenet-f16-256", release=release)


def _row(variant: str, gfid: str, settings: RarSettings) -> Preset:
    """A row of the release's table, which its commands make on 8 GPUs."""
    return Preset(
        settings=settings,
        variants=(variant,),
        classes="cycled",
        seed="42 + rank",
        world_size=8,
        batch_size=50,
        printed=f"README_RAR.md of bytedance/1d-tokenizer: gFID {gfid}",
    )


METHOD = GeneratorMethod(
    id="rar",
    title="RAR",
    idea="Autoregression over a grid of codes, trained in random orders that anneal to the raster, to see both ways",
    paper=Paper(
        title="Randomized Autoregressive Visual Generation",
        authors="Qihang Yu, Ju He, Xueqing Deng, Xiaohui Shen, Liang-Chieh Chen",
        year=2024,
        url="https://arxiv.org/abs/2411.00776",
    ),
    settings=RarSettings,
    build=build,
    variants={
        "b": _size(768, 24, 3072, "rar_b.bin"),
        "l": _size(1024, 24, 4096, "rar_l.bin"),
        "xl": _size(1280, 32, 5120, "rar_xl.bin"),
        "xxl": _size(1408, 40, 6144, "rar_xxl.bin"),
    },
    presets={
        "rar-b-paper": _row("b", "1.95", RarSettings(cfg_scale=16.0, cfg_power=2.75, temperature=1.0)),
        "rar-l-paper": _row("l", "1.70", RarSettings(cfg_scale=15.5, cfg_power=2.5, temperature=1.02)),
        "rar-xl-paper": _row("xl", "1.50", RarSettings(cfg_scale=6.9, cfg_power=1.5, temperature=1.02)),
        "rar-xxl-paper": _row("xxl", "1.48", RarSettings(cfg_scale=8.0, cfg_power=1.2, temperature=1.02)),
    },
)
