"""Halton-MaskGIT: which codes are decided when is told by Halton's points, and not by confidence."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from reference_impls.layers.class_generator import Watch
from reference_impls.layers.code_generator import CodeGenerator
from reference_impls.layers.halton_sampling import HaltonSettings, sampled_codes
from reference_impls.layers.halton_transformer import HaltonTransformer
from reference_impls.layers.noise import Noise
from reference_impls.layers.precision import at_least_float32
from tokenmark.contracts import GeneratorMethod, Layout, MethodError, Paper, Preset, Release, Tokenizer, Variant

__all__ = ["METHOD", "HaltonMaskGit", "build", "release_arguments"]


class HaltonMaskGit(HaltonTransformer, CodeGenerator):
    """The generator: it is the transformer, because the release stores its keys without a prefix."""

    def __init__(self, *, input_size: int, codebook_size: int, nclass: int, **sizes: Any) -> None:
        super().__init__(input_size=input_size, codebook_size=codebook_size, nclass=nclass, **sizes)
        self.input_size, self.codebook_size, self.classes = input_size, codebook_size, nclass

    @property
    def written(self) -> tuple[int, tuple[int, ...]]:
        """Tokens of an image, and their codes."""
        return self.input_size**2, (self.codebook_size,)

    def steps(self, settings: HaltonSettings) -> int:
        """How often the network is called for a batch."""
        return settings.steps

    @torch.no_grad()
    def generate(
        self,
        labels: Tensor,
        settings: HaltonSettings,
        noise: Noise,
        watch: Watch,
        each: Callable[[Tensor, Tensor], None] | None = None,
    ) -> Tensor:
        """Codes `(B, n*n)` for `labels` `(B,)`, row by row; a code that was drawn as the mask is still K.

        `each` sees what every step drew, and the codes after it.
        """
        return sampled_codes(
            lambda codes, classes: at_least_float32(self(codes, classes)),
            labels,
            side=self.input_size,
            codes=self.codebook_size,
            dropped=self.classes,
            settings=settings,
            noise=noise,
            watch=watch,
            each=each,
        )

    def readable(self, codes: Tensor) -> Tensor:
        """What is still masked becomes the last code, as in the release."""
        return codes.clamp(max=self.codebook_size - 1)


def build(tokenizer: Tokenizer | None, **sizes: Any) -> HaltonMaskGit:
    """A generator that writes for `tokenizer`; sizes are `HaltonTransformer`'s.

    Raises MethodError if the tokenizer does not read the codes that these sizes write.
    """
    generator = HaltonMaskGit(**sizes)
    generator.attach(tokenizer)
    return generator


SIZES = "input_size", "hidden_dim", "codebook_size", "depth", "heads", "mlp_dim", "nclass", "register"


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `build`, without its tokenizer, for a release's configuration.

    Raises MethodError for `proj` above 1, which the release's own code cannot run.
    """
    if config.get("proj", 1) != 1:
        raise MethodError(f"proj must be 1, got {config['proj']}")
    return {name: config[name] for name in SIZES}


def _variant(name: str, side: int, width: int, depth: int, heads: int) -> Variant:
    return Variant(
        config={
            "input_size": side,
            "hidden_dim": width,
            "codebook_size": 16384,
            "depth": depth,
            "heads": heads,
            "mlp_dim": 4 * width,
            "nclass": 1000,
            "register": 1,
        },
        tokenizer="llamagen-vq/vq-16" if side == 16 else "llamagen-vq/vq-16-384",
        release=Release("llvictorll/Halton-MaskGIT", f"ImageNet_{16 * side}_{name}.pth", licence="MIT"),
    )


def _row(w: float, *variants: str) -> Preset:
    """The release's evaluation script at the guidance of a size; its README draws with other temperatures.

    Classes are those of ImageNet's validation images, 50 of each, shuffled. It fixes no seed.
    """
    return Preset(
        settings=HaltonSettings(steps=32, w=w, temp_warmup=1),
        variants=variants,
        printed="launch/eval_test_to_img.sh of valeoai/Halton-MaskGIT: settings without a gFID",
    )


METHOD = GeneratorMethod(
    id="halton-maskgit",
    title="Halton-MaskGIT",
    idea="MaskGIT whose codes are decided in the order of Halton's points, which lie far apart, and not by confidence",
    paper=Paper(
        title="Halton Scheduler for Masked Generative Image Transformer",
        authors="Victor Besnier, Mickael Chen, David Hurych, Eduardo Valle, Matthieu Cord",
        year=2025,
        url="https://arxiv.org/abs/2503.17076",
    ),
    settings=HaltonSettings,
    # What torch.compile and data-parallel training put before a key.
    layout=Layout(wrappers=("model_state_dict",), renames=((r"^(?:module\.|_orig_mod\.)+", ""),)),
    build=build,
    variants={
        "tiny-256": _variant("tiny", 16, 384, 6, 6),
        "small-256": _variant("small", 16, 512, 12, 6),
        "base-256": _variant("base", 16, 768, 12, 12),
        "small-384": _variant("small", 24, 512, 12, 6),
        "base-384": _variant("base", 24, 768, 12, 12),
        "large-384": _variant("large", 24, 1024, 24, 16),
    },
    presets={
        "halton-tiny-paper": _row(1.5, "tiny-256"),
        "halton-small-paper": _row(1.0, "small-256", "small-384"),
        "halton-base-paper": _row(0.7, "base-256", "base-384"),
        "halton-large-paper": _row(0.5, "large-384"),
    },
)
