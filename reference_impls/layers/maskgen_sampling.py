"""MaskGen's samplers (arXiv 2501.07730, section 3.3): from text to codes, and from text to latents.

The arithmetic is that of the release (`generate` and `sample_tokens`, modeling/maskgen.py of bytedance/1d-tokenizer).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from reference_impls.layers.class_generator import Watch
from reference_impls.layers.mar_sampling import Entering, MarSettings, write_latents
from reference_impls.layers.masked_sampling import mask_ratio
from reference_impls.layers.maskgen import MaskGenKL, MaskGenVQ, Text, repeated_text
from reference_impls.layers.noise import Noise, gumbel
from reference_impls.layers.precision import at_least_float32
from tokenmark.contracts import MethodError

__all__ = ["VqSettings", "sampled_codes", "sampled_latents"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VqSettings:
    """What a sampling run of MaskGen-VQ may choose; the release's other schedules it never uses, and are not here."""

    steps: int = 16
    """Forward passes, of two images each."""
    temperature: float = 1.5
    """Scale of the Gumbel noise at the start; it falls to 0 at the last step."""
    cfg_scale: float = 12.0
    """What guidance grows to, in the sense of `weight`."""
    cfg_schedule: Literal["cosine", "linear", "constant"] = "cosine"
    prob_sorting: bool = True
    """Whether the confidence has noise of its own, too."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise MethodError(f"steps must be at least 1, got {self.steps}")
        if self.cfg_schedule not in ("cosine", "linear", "constant"):
            raise MethodError(f"cfg_schedule must be cosine, linear or constant, got '{self.cfg_schedule}'")
        for name, value in (("temperature", self.temperature), ("cfg_scale", self.cfg_scale)):
            if not 0.0 <= value < math.inf:
                raise MethodError(f"{name} must be 0 or more, got {value}")

    def weight(self, step: int) -> float:
        """The s of `cond + s (cond - uncond)` at a step counted from 0.

        Quirk of the release: growing schedules begin above 1, which in this form is guidance already, not none.
        """
        ratio = (step + 1) / self.steps
        if self.cfg_schedule == "constant":
            return self.cfg_scale
        share = ratio if self.cfg_schedule == "linear" else (1.0 - math.cos(math.pi * ratio)) / 2.0
        return 1.0 + (self.cfg_scale - 1.0) * share


@torch.no_grad()
def sampled_codes(
    module: MaskGenVQ,
    text: Text,
    empty: Text,
    settings: VqSettings,
    noise: Noise,
    watch: Watch,
    entering: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Codes `(B, N)` for `text`, from given noise.

    Args:
        module: The network.
        text: What `B` images are to show.
        empty: The empty text, of a batch of 1.
        settings: What the run chose.
        noise: Uniform "tokens" `(N, K)`, and "confidence" `(N,)` if it sorts, of every step.
        watch: Sees every step's logits.
        entering: Sees the codes that every step starts from.
    """
    mask, length = module.codebook_size, module.length
    read = module.read(repeated_text(text, empty))
    codes = torch.full((len(text.states), length), mask, device=text.states.device)
    for step in range(settings.steps):
        if entering is not None:
            entering(codes)
        ratio = (step + 1) / settings.steps
        told, untold = at_least_float32(module(codes.repeat(2, 1), read)).chunk(2)
        guided = told + settings.weight(step) * (told - untold)
        logits = watch.see(guided) / (0.5 + 0.8 * (1.0 - ratio))
        # One temperature for both noises; 0 at the last step, which therefore takes the likeliest codes.
        temperature = settings.temperature * (1.0 - ratio)
        uniform = noise.uniform("tokens", step, length, mask).to(logits)
        drawn = (logits + temperature * gumbel(uniform)).argmax(-1)
        confidence = logits.gather(-1, drawn.unsqueeze(-1)).squeeze(-1)
        if settings.prob_sorting:
            confidence = confidence + temperature * gumbel(noise.uniform("confidence", step, length).to(logits))
        masked = codes == mask
        codes = torch.where(masked, drawn, codes)
        if step + 1 < settings.steps:
            codes = codes.masked_fill(_least_sure(confidence, masked, ratio), mask)
    return codes


def _least_sure(confidence: Tensor, masked: Tensor, ratio: float) -> Tensor:
    """Which codes `(B, N)` are masked again: of the masked ones the least sure, one fewer at least than they were.

    The release counts them in the first image for all. Every image counts its own here, so that its batch does not
    matter; the counts are equal unless confidences tie.
    """
    wanted = max(1, math.floor(masked.shape[1] * mask_ratio(ratio)))
    count = (masked.sum(1, keepdim=True) - 1).clamp(min=1, max=wanted)
    known_last = confidence.masked_fill(~masked, torch.inf)
    return known_last <= known_last.sort(dim=1).values.gather(1, count - 1)


@torch.no_grad()
def sampled_latents(
    module: MaskGenKL,
    text: Text,
    empty: Text,
    settings: MarSettings,
    noise: Noise,
    watch: Watch,
    entering: Entering | None = None,
) -> Tensor:
    """Latents `(B, N, C)` for `text`, as the tokenizer reads them, from given noise.

    Args:
        module: The network.
        text: What `B` images are to show.
        empty: The empty text, of a batch of 1.
        settings: What the run chose.
        noise: As `write_latents` asks for it.
        watch: Sees every iteration's latents.
        entering: Sees what every iteration starts from.
    """
    read = module.read(repeated_text(text, empty) if settings.guided else text)

    def look(tokens: Tensor, visible: Tensor) -> Tensor:
        return module.features(tokens, visible, read)

    latents = write_latents(module.head, look, module.length, settings, noise, watch, entering)
    return latents / module.latent_scale
