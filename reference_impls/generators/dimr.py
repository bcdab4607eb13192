"""DiMR: diffusion in latents by a network of several resolutions, which knows time from its norms alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reference_impls.layers.class_generator import ClassGenerator, Watch
from reference_impls.layers.dimr_network import DimrNetwork, StageSize
from reference_impls.layers.dpm_solver import TRAINING_STEPS, stable_diffusion_solver
from reference_impls.layers.grid_vq import as_rows
from reference_impls.layers.noise import Noise
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.token_checks import pack_latents
from tokenmark.contracts import GeneratorMethod, Layout, MethodError, Paper, Preset, Release, Tokenizer, Variant

__all__ = ["METHOD", "Dimr", "SamplerSettings", "build"]

LATENT_SCALE = 0.18215
"""What the autoencoder's latents are multiplied with for the network."""
CONSTANT = -1.0
"""The `cfg_scale_pow` that stands for guidance that does not change with time."""


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """What a sampling run may choose (the names are the release's)."""

    steps: int = 250
    """Network calls of DPM-Solver, on twice the images with guidance."""
    cfg_scale: float = 0.4
    """Guidance; its meaning depends on `cfg_scale_pow`, and 0 is none in both."""
    cfg_scale_pow: float = CONSTANT
    """-1: cond + cfg_scale (cond - uncond) at all times. Else the power of the cosine along which the s of
    uncond + s (cond - uncond) rises from 1 to `cfg_scale`."""

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= TRAINING_STEPS:
            raise MethodError(f"steps must be 1 to {TRAINING_STEPS}, got {self.steps}")
        if not 0.0 <= self.cfg_scale < math.inf:
            raise MethodError(f"cfg_scale must be 0 or greater, got {self.cfg_scale}")
        if self.cfg_scale_pow != CONSTANT and not 0.0 < self.cfg_scale_pow < math.inf:
            raise MethodError(f"cfg_scale_pow must be -1 or greater than 0, got {self.cfg_scale_pow}")
        if self.cfg_scale_pow != CONSTANT and 0.0 < self.cfg_scale < 1.0:
            raise MethodError(f"cfg_scale must be at least 1 where cfg_scale_pow is not -1, got {self.cfg_scale}")

    def guidance_weight(self, time: float) -> float:
        """The w of cond + w (cond - uncond) at a time in [0, 1]."""
        if self.cfg_scale_pow == CONSTANT or self.cfg_scale == 0.0:
            return self.cfg_scale
        rise = (1.0 - math.cos(math.pi * (1.0 - time) ** self.cfg_scale_pow)) / 2.0
        return (self.cfg_scale - 1.0) * rise


class Dimr(DimrNetwork, ClassGenerator):
    """The network and its sampler; it is the network because the release stores its keys without a prefix."""

    def __init__(self, *, channels: int, classes: int, stages: Sequence[StageSize]) -> None:
        super().__init__(channels=channels, classes=classes + 1, stages=stages)
        finest = stages[-1]
        self.classes, self.ratio = classes, finest.input_feature_ratio
        self.shape = (channels, finest.max_height * self.ratio, finest.max_width * self.ratio)

    def steps(self, settings: SamplerSettings) -> int:
        """How often the network is called for a batch."""
        return settings.steps

    def draw(self, labels: Tensor, noise: Noise, settings: SamplerSettings, watch: Watch) -> Tensor:
        """Images `(B, 3, S, S)` for `labels` `(B,)`."""
        tokenizer = self.tokenizer
        latents = self.generate(labels, settings, noise, watch) / LATENT_SCALE
        return tokenizer.decode(pack_latents(as_rows(latents)))

    @torch.no_grad()
    def generate(self, labels: Tensor, settings: SamplerSettings, noise: Noise, watch: Watch) -> Tensor:
        """Latents `(B, C, H, W)`, scaled as the network knows them, for `labels` `(B,)`.

        Noise: normal `start` `(B, C, H, W)`, and no more.
        """
        number_type = next(self.parameters()).dtype

        def predicted(x: Tensor, time: float) -> Tensor:
            return watch.see(self._guided(x.to(number_type), time, labels, settings.guidance_weight(time)))

        start = noise.normal("start", 0, *self.shape).to(torch.promote_types(number_type, torch.float32))
        return stable_diffusion_solver(settings.steps).sample(predicted, start)

    def _guided(self, x: Tensor, time: float, labels: Tensor, weight: float) -> Tensor:
        """Noise `(B, C, H, W)` in `x`, float32 at least."""
        # The release calls this number a log-SNR, which it is in training only.
        when = torch.full((1,), 8.0 * time - 4.0, dtype=x.dtype, device=x.device)
        if weight == 0.0:
            return at_least_float32(self(x, when, labels)[-1])
        dropped = torch.full_like(labels, self.classes)
        both = at_least_float32(self(torch.cat([x, x]), when, torch.cat([labels, dropped]))[-1])
        conditional, unconditional = both.chunk(2)
        return conditional + weight * (conditional - unconditional)


def build(
    tokenizer: Tokenizer | None,
    *,
    channels: int,
    num_classes: int,
    stage_configs: Sequence[Mapping[str, Any]],
) -> Dimr:
    """A generator that writes for `tokenizer`; sizes as in the release, whose `num_classes` counts the dropped one.

    Raises MethodError if the tokenizer does not read the latents that these sizes write.
    """
    generator = Dimr(
        channels=channels, classes=num_classes - 1, stages=[StageSize(**config) for config in stage_configs]
    )
    generator.attach_latents(tokenizer, generator.shape[1] * generator.shape[2], channels)
    return generator


def _two_stages(width: int, blocks: tuple[int, int]) -> dict[str, Any]:
    """The released sizes: a 16x16 transformer of `width`, then a 32x32 ConvNeXt of half of it."""
    shared = {"final_kernel_size": 3}
    coarse = {"max_height": 16, "max_width": 16, "input_feature_ratio": 2, "num_attention_heads": 16}
    fine = {"max_height": 32, "max_width": 32, "input_feature_ratio": 1, "kernel_size": 7}
    return {
        "channels": 4,
        "num_classes": 1001,
        "stage_configs": (
            {
                **shared,
                **coarse,
                "block_type": "TransformerBlock",
                "dim": width,
                "hidden_dim": 2 * width,
                "num_blocks": blocks[0],
            },
            {
                **shared,
                **fine,
                "block_type": "ConvNeXtBlock",
                "dim": width // 2,
                "hidden_dim": width,
                "num_blocks": blocks[1],
            },
        ),
    }


def _row(variant: str, gfid: str) -> Preset:
    """The release's defaults: the guidance with which its numbers were measured it does not tell."""
    return Preset(
        settings=SamplerSettings(steps=250, cfg_scale=0.4, cfg_scale_pow=CONSTANT),
        variants=(variant,),
        classes="sorted",
        seed="1234 + rank",
        world_size=8,
        batch_size=50,
        printed=f"README.md of qihao067/DiMR: gFID {gfid}, of a guidance that it leaves out",
    )


METHOD = GeneratorMethod(
    id="dimr",
    title="DiMR",
    idea="Latent diffusion by a transformer on a coarse grid and convolutions on a finer one; norms change with time",
    paper=Paper(
        title="Alleviating Distortion in Image Generation via Multi-Resolution Diffusion Models and Time-Dependent "
        "Layer Normalization",
        authors="Qihao Liu, Zhanpeng Zeng, Ju He, Qihang Yu, Xiaohui Shen, Liang-Chieh Chen",
        year=2024,
        url="https://arxiv.org/abs/2406.09416",
    ),
    settings=SamplerSettings,
    build=build,
    layout=Layout(
        renames=(
            (r"\.input_layer\.1\.", ".entry.patches."),
            (r"\.input_layer\.3\.position_embeddings\.", ".entry.positions."),
            (r"\.upsample\.0\.", ".upsample.before."),
            (r"\.upsample\.1\.kernel\.", ".upsample.kernel."),
            (r"\.upsample\.2\.", ".upsample.after."),
            (r"\.output_layer\.0\.", ".head_norm."),
            (r"\.output_layer\.2\.", ".head."),
            (r"\.block1\.1\.", ".block1."),
        )
    ),
    variants={
        "xl-2r-256": Variant(
            config=_two_stages(960, (39, 20)),
            tokenizer="sd-vae/ft-ema",
            release=Release("QHL067/DiMR", "DiMR-XL_2R_800epochs.pth", licence="Apache-2.0"),
        ),
        "g-2r-256": Variant(
            config=_two_stages(1152, (57, 29)),
            tokenizer="sd-vae/ft-ema",
            release=Release("QHL067/DiMR", "DiMR-G_2R_800epochs.pth", licence="Apache-2.0"),
        ),
    },
    presets={
        "dimr-xl-2r-256-release": _row("xl-2r-256", "1.70"),
        "dimr-g-2r-256-release": _row("g-2r-256", "1.63"),
    },
)
