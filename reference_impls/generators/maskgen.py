"""MaskGen: text to TA-TiTok's tokens by masked prediction, of codes or of continuous latents."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from reference_impls.layers.class_generator import Watch
from reference_impls.layers.denoising_mlp import TRAINING_STEPS
from reference_impls.layers.mar_sampling import MarSettings, iterations
from reference_impls.layers.maskgen import LAYOUT, MaskGenKL, MaskGenVQ, Text
from reference_impls.layers.maskgen_sampling import VqSettings, sampled_codes, sampled_latents
from reference_impls.layers.noise import Noise
from reference_impls.layers.text_generator import TextGenerator
from reference_impls.layers.token_checks import pack_codes, pack_latents
from tokenmark.contracts import (
    GeneratorMethod,
    MethodError,
    Paper,
    Preset,
    Prompts,
    Release,
    Tokenizer,
    Tokens,
    Variant,
)

__all__ = ["METHOD", "MaskGenCodes", "MaskGenLatents", "MaskGenSettings", "build", "release_arguments", "texts_of"]

TEXT_TOKENS, TEXT_CHANNELS = 77, 768
"""Of CLIP ViT-L/14's text tower, where a configuration does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskGenSettings:
    """What a sampling run may choose (`generate` and `sample_tokens`, modeling/maskgen.py of the release)."""

    steps: int = 16
    """Passes of the transformer."""
    temperature: float = 2.0
    """Codes: scale of the Gumbel noise at the start. Latents: what the noise of diffusion steps is multiplied by."""
    cfg_scale: float = 12.0
    """What guidance grows to. Codes: the s of cond + s (cond - uncond). Latents: of uncond + s (cond - uncond)."""
    cfg_schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How it grows; of latents there is no cosine."""
    prob_sorting: bool = True
    """Of codes: whether the confidence has noise of its own, too."""
    diffusion_steps: int = 100
    """Of latents: steps of the head for every token, of the 1000 that it was trained in."""
    aesthetic_score: float = 6.5
    """What images are told to be worth, as LAION's predictor scores them."""

    def __post_init__(self) -> None:
        self.of_codes()
        if not 1 <= self.diffusion_steps <= TRAINING_STEPS:
            raise MethodError(f"diffusion_steps must be 1 to {TRAINING_STEPS}, got {self.diffusion_steps}")
        if not 0.0 <= self.aesthetic_score < math.inf:
            raise MethodError(f"aesthetic_score must be a number from 0 on, got {self.aesthetic_score}")

    def of_codes(self) -> VqSettings:
        """Those of the sampler of codes."""
        return VqSettings(
            steps=self.steps,
            temperature=self.temperature,
            cfg_scale=self.cfg_scale,
            cfg_schedule=self.cfg_schedule,
            prob_sorting=self.prob_sorting,
        )

    def of_latents(self) -> MarSettings:
        """Those of the sampler of latents; MethodError for a schedule that it does not have."""
        if self.cfg_schedule == "cosine":
            raise MethodError("cfg_schedule of latents must be linear or constant, got 'cosine'")
        return MarSettings(
            steps=self.steps,
            cfg_scale=self.cfg_scale,
            cfg_schedule=self.cfg_schedule,
            temperature=self.temperature,
            diffusion_steps=self.diffusion_steps,
        )


def texts_of(prompts: Prompts, score: float, like: Tensor) -> tuple[Text, Text]:
    """What `prompts` tell the transformer, and the same of the empty text.

    It reads the states before the tower's last block; those behind its last norm are for TA-TiTok's decoder.
    """
    scores = torch.full(
        (len(prompts.pooled),), score, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device
    )
    return (
        Text(prompts.inner, prompts.pooled, scores),
        Text(prompts.empty_inner, prompts.empty_pooled, scores[:1]),
    )


class ToldTexts(TextGenerator):
    """What both forms have around the network, which stands behind this among the bases.

    Args:
        text_tokens: Tokens of a text, T.
        text_channels: Of the text's states and of its pooled embedding, E.
        sizes: Other arguments of the network.
    """

    pos_embed: nn.Parameter

    def __init__(self, *, text_tokens: int, text_channels: int, **sizes: Any) -> None:
        super().__init__(text_channels=text_channels, **sizes)
        self.told = (text_tokens, text_channels, text_channels)

    def written(self, text: Text, empty: Text, settings: MaskGenSettings, noise: Noise, watch: Watch) -> Tokens:
        """Tokens for `text`, and for the empty one of a batch of 1, from given noise."""
        raise NotImplementedError

    def draw(self, prompts: Prompts, noise: Noise, settings: MaskGenSettings, watch: Watch) -> Tensor:
        """Images `(B, 3, S, S)` in [0, 1] from given noise."""
        text, empty = texts_of(prompts, settings.aesthetic_score, self.pos_embed)
        return self.decoded(self.written(text, empty, settings, noise, watch), prompts.states)


class MaskGenCodes(ToldTexts, MaskGenVQ):
    """MaskGen-VQ and its sampler."""

    def steps(self, settings: MaskGenSettings) -> int:
        """Passes of the transformer."""
        return settings.steps

    def written(self, text: Text, empty: Text, settings: MaskGenSettings, noise: Noise, watch: Watch) -> Tokens:
        """Codes `(B, N)`."""
        return pack_codes(sampled_codes(self, text, empty, settings.of_codes(), noise, watch), self.codebook_size)


class MaskGenLatents(ToldTexts, MaskGenKL):
    """MaskGen-KL and its sampler."""

    def steps(self, settings: MaskGenSettings) -> int:
        """Passes of the transformer; the head's `diffusion_steps` in each of them are not counted."""
        return len(iterations(self.length, settings.steps, 1.0, "constant"))

    def written(self, text: Text, empty: Text, settings: MaskGenSettings, noise: Noise, watch: Watch) -> Tokens:
        """Latents `(B, N, C)`."""
        return pack_latents(sampled_latents(self, text, empty, settings.of_latents(), noise, watch))


Sized: TypeAlias = MaskGenCodes | MaskGenLatents


def build(
    tokenizer: Tokenizer | None,
    *,
    num_latent_tokens: int,
    decoder_embed_dim: int,
    decoder_depth: int,
    decoder_num_heads: int,
    micro_condition_embed_dim: int = 256,
    text_tokens: int = TEXT_TOKENS,
    text_embed_dim: int = TEXT_CHANNELS,
    codebook_size: int | None = None,
    condition_num_classes: int = 1000,
    token_size: int = 16,
    scale_factor: float = 0.7525,
    diffloss_d: int = 8,
    diffloss_w: int = 1024,
) -> Sized:
    """A generator that writes for `tokenizer`, of codes if there is a `codebook_size`, else of latents.

    Sizes are named as in the release's configuration. Raises MethodError if the tokenizer does not read what these
    sizes write, or is told a text of another size.
    """
    if decoder_embed_dim % decoder_num_heads:
        raise MethodError(f"decoder_embed_dim must be a multiple of decoder_num_heads, got {decoder_embed_dim}")
    shared: dict[str, Any] = {
        "length": num_latent_tokens,
        "width": decoder_embed_dim,
        "depth": decoder_depth,
        "heads": decoder_num_heads,
        "score_width": micro_condition_embed_dim,
        "text_tokens": text_tokens,
        "text_channels": text_embed_dim,
    }
    told = (text_tokens, text_embed_dim)
    if tokenizer is not None and tokenizer.info.text not in (None, told):
        raise MethodError(
            f"this generator is told texts of {told} tokens and channels, the tokenizer of {tokenizer.info.text}"
        )
    if codebook_size is not None:
        codes = MaskGenCodes(codebook_size=codebook_size, condition_num_classes=condition_num_classes, **shared)
        codes.attach_codes(tokenizer, num_latent_tokens, (codebook_size,))
        return codes
    latents = MaskGenLatents(
        channels=token_size, diffloss_d=diffloss_d, diffloss_w=diffloss_w, latent_scale=scale_factor, **shared
    )
    latents.attach_latents(tokenizer, num_latent_tokens, token_size)
    return latents


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `build`, without its tokenizer, for a release's configuration tree.

    What has a diffusion head gives latents.
    """
    image, sizes = config["model"]["vq_model"], config["model"]["maskgen"]
    if not sizes["micro_condition"]:
        raise MethodError("MaskGen without an aesthetic score was never released: micro_condition must be true")
    names = ("decoder_embed_dim", "decoder_depth", "decoder_num_heads", "micro_condition_embed_dim")
    found = {
        "num_latent_tokens": image["num_latent_tokens"],
        "text_embed_dim": image.get("text_embed_dim", TEXT_CHANNELS),
        **{name: sizes[name] for name in names},
    }
    if "losses" not in config:
        classes = sizes["condition_num_classes"]
        return {**found, "codebook_size": image["codebook_size"], "condition_num_classes": classes}
    head = {name: config["losses"][name] for name in ("diffloss_d", "diffloss_w")}
    return {**found, "token_size": image["token_size"], "scale_factor": image["scale_factor"], **head}


def _size(form: str, size: str, width: int, depth: int) -> Variant:
    config: dict[str, Any] = {"decoder_embed_dim": width, "decoder_depth": depth, "decoder_num_heads": 16}
    release = Release(f"turkeyju/generator_maskgen_{form}_{size}", licence="Apache-2.0")
    if form == "vq":
        config |= {"num_latent_tokens": 128, "codebook_size": 8192}
        return Variant(config=config, tokenizer="ta-titok/bl128-vq", release=release)
    config |= {"num_latent_tokens": 32, "token_size": 16, "diffloss_d": 8, "diffloss_w": width}
    return Variant(config=config, tokenizer="ta-titok/bl32-vae", release=release)


PRINTED = "configs/infer/MaskGen/*.yaml: settings alone; scores are of MJHQ-30K and GenEval, none is an ImageNet gFID"

METHOD = GeneratorMethod(
    id="maskgen",
    title="MaskGen",
    idea="Text to few one-dimensional tokens by masked prediction, of codes or, with a diffusion head, of latents",
    paper=Paper(
        title="Democratizing Text-to-Image Masked Generative Models with Compact Text-Aware One-Dimensional Tokens",
        authors="Dongwon Kim, Ju He, Qihang Yu, Chenglin Yang, Xiaohui Shen, Suha Kwak, Liang-Chieh Chen",
        year=2025,
        url="https://arxiv.org/abs/2501.07730",
    ),
    settings=MaskGenSettings,
    build=build,
    layout=LAYOUT,
    text="clip-text-vit-l14-336",
    variants={
        f"{form}-{size}": _size(form, size, width, depth)
        for form in ("vq", "kl")
        for size, width, depth in (("l", 1024, 16), ("xl", 1280, 20))
    },
    presets={
        "maskgen-vq-paper": Preset(
            settings=MaskGenSettings(steps=16, temperature=2.0, cfg_scale=12.0, cfg_schedule="cosine"),
            variants=("vq-l", "vq-xl"),
            printed=PRINTED,
        ),
        "maskgen-kl-paper": Preset(
            settings=MaskGenSettings(steps=32, temperature=1.0, cfg_scale=3.0, cfg_schedule="linear"),
            variants=("kl-l", "kl-xl"),
            printed=PRINTED,
        ),
    },
)
