"""Sampling of classes by diffusion in the latents of an autoencoder, as DiT (arXiv 2212.09748) and its heirs do it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from reference_impls.layers.class_generator import ClassGenerator, Watch
from reference_impls.layers.diffusion import RespacedDiffusion, guide, linear_betas, respaced_steps
from reference_impls.layers.grid_vq import as_rows
from reference_impls.layers.noise import Noise
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.token_checks import pack_latents
from tokenmark.contracts import MethodError, Tokenizer

__all__ = ["GUIDED_CHANNELS", "TRAINING_STEPS", "DiffusionSettings", "ImplicitDiffusion", "LatentDiffusion"]

TRAINING_STEPS = 1000
GUIDED_CHANNELS = 3
"""Of the noise that DiT's release predicts only the first three channels are guided, of latents that have four."""


@dataclass(frozen=True, slots=True)
class DiffusionSettings:
    """What a sampling run may choose."""

    steps: int = 250
    """How many of the 1000 training steps are taken (network calls, on twice the images with guidance)."""
    cfg_scale: float = 1.5
    """Classifier-free guidance; 1 is none."""
    sampler: Literal["ddpm", "ddim"] = "ddpm"
    """Ancestral sampling with the learned variance, or DDIM (arXiv 2010.02502), which takes every n-th step."""
    eta: float = 0.0
    """Noise of DDIM's steps: 0 is none, 1 is that of DDPM's posterior."""

    def __post_init__(self) -> None:
        if self.sampler not in ("ddpm", "ddim"):
            raise MethodError(f"sampler must be ddpm or ddim, got '{self.sampler}'")
        if not 1.0 <= self.cfg_scale < math.inf:
            raise MethodError(f"cfg_scale must be at least 1, and finite, got {self.cfg_scale}")
        if not 0.0 <= self.eta <= 1.0:
            raise MethodError(f"eta must be 0 to 1, got {self.eta}")
        if self.eta and self.sampler != "ddim":
            raise MethodError("eta is a setting of the sampler ddim")
        if not 1 <= self.steps <= TRAINING_STEPS:
            raise MethodError(f"steps must be 1 to {TRAINING_STEPS}, got {self.steps}")
        # DDIM takes steps at one stride, which not every number of them allows.
        respaced_steps(TRAINING_STEPS, self.spacing)

    @property
    def spacing(self) -> str:
        """The training steps that are taken, as `respaced_steps` reads it."""
        return f"ddim{self.steps}" if self.sampler == "ddim" else str(self.steps)


class ImplicitDiffusion(RespacedDiffusion):
    """The reverse process with DDIM's steps too (arXiv 2010.02502, eq. 12)."""

    def clean(self, output: Tensor, x: Tensor, row: int) -> Tensor:
        """What `x` `(B, C, ...)` at `steps[row]` would be without noise, by the model's `output` `(B, 2C, ...)`."""
        image: Tensor = self._x0_of_x[row] * x - self._x0_of_noise[row] * output.chunk(2, dim=1)[0]
        return image

    def implicit(self, output: Tensor, x: Tensor, row: int, eta: float) -> tuple[Tensor, float]:
        """Mean and standard deviation of the latents before `x`, by DDIM; the predicted variance is left alone."""
        kept, before = self._kept(row), self._kept(row - 1)
        deviation = eta * ((1.0 - before) / (1.0 - kept) * (1.0 - kept / before)) ** 0.5
        noise = output.chunk(2, dim=1)[0]
        return before**0.5 * self.clean(output, x, row) + (1.0 - before - deviation**2) ** 0.5 * noise, deviation

    def _kept(self, row: int) -> float:
        """The share of the image's variance that is left at `steps[row]`: 1 before the first."""
        return 1.0 if row < 0 else float(self._x0_of_x[row]) ** -2.0


@lru_cache(maxsize=8)
def _diffusion(spacing: str) -> ImplicitDiffusion:
    return ImplicitDiffusion(linear_betas(TRAINING_STEPS), respaced_steps(TRAINING_STEPS, spacing))


class LatentDiffusion(ClassGenerator):
    """A network that predicts the noise in a grid of latents and its variance, and the sampler around it.

    A subclass sets the attributes below and gives `forward`.
    """

    channels: int
    """Channels of the latents, C."""
    side: int
    """Side of the grid of latents, S."""
    latent_scale: float
    """What the tokenizer's latents are multiplied with for the network."""
    guided_channels: int = GUIDED_CHANNELS
    """How many of the noise's channels are guided."""

    def forward(self, x: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """Noisy latents `(B, C, S, S)`, training steps `(B,)` and labels to noise, then variance, `(B, 2C, S, S)`.

        Label `classes` is the dropped one.
        """
        raise NotImplementedError

    def steps(self, settings: DiffusionSettings) -> int:
        """Calls of the network for a batch: one for each training step that is taken, guided or not."""
        return settings.steps

    def attach(self, tokenizer: Tokenizer | None) -> None:
        """Bind to `tokenizer`, which must read the latents that the network writes; None leaves it without one."""
        self.attach_latents(tokenizer, self.side**2, self.channels)

    def guided(self, x: Tensor, times: Tensor, labels: Tensor, scale: float) -> Tensor:
        """What `forward` gives for `labels`, its first channels guided (arXiv 2207.12598); one call for both halves."""
        if scale == 1.0:
            return at_least_float32(self(x, times, labels))
        dropped = torch.full_like(labels, self.classes)
        both = self(torch.cat([x, x]), torch.cat([times, times]), torch.cat([labels, dropped]))
        told, untold = at_least_float32(both).chunk(2)
        return guide(told, untold, scale, self.guided_channels)

    @torch.no_grad()
    def generate(
        self,
        labels: Tensor,
        settings: DiffusionSettings,
        noise: Noise,
        watch: Watch,
        entering: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Latents `(B, C, S, S)`, scaled, from given noise; `entering` sees those that every step starts from."""
        diffusion = _diffusion(settings.spacing)
        shape, rows = (self.channels, self.side, self.side), len(diffusion.steps)
        x = noise.normal("start", 0, *shape)
        # Steps are made in float32 at least, whatever the network computes in.
        x = x.double() if next(self.parameters()).dtype == torch.float64 else x.float()
        for row in range(rows - 1, -1, -1):
            if entering is not None:
                entering(x)
            times = torch.full((len(x),), diffusion.steps[row], dtype=torch.int64, device=x.device)
            output = self.guided(x, times, labels, settings.cfg_scale)
            deviation: Tensor | float
            if settings.sampler == "ddim":
                x, deviation = diffusion.implicit(output, x, row, settings.eta)
            else:
                x, log_variance = diffusion.before(output, x, row)
                deviation = torch.exp(0.5 * log_variance)
            if row and (settings.sampler == "ddpm" or settings.eta):
                x = x + deviation * noise.normal("step", rows - 1 - row, *shape).to(x)
            watch.see(x)
        return x

    def draw(self, labels: Tensor, noise: Noise, settings: DiffusionSettings, watch: Watch) -> Tensor:
        """Images `(B, 3, H, W)` in [0, 1] from given noise."""
        latents = self.generate(labels, settings, noise, watch) / self.latent_scale
        return self.tokenizer.decode(pack_latents(as_rows(latents)))
