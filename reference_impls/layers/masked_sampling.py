"""MaskGIT's parallel decoding and its training loss, for any network that predicts masked codes.

The arithmetic is that of TiTok's release (modeling/maskgit.py of bytedance/1d-tokenizer).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from reference_impls.layers.class_generator import Watch
from reference_impls.layers.code_generator import CodeGenerator
from reference_impls.layers.noise import Noise, gumbel
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.remasking import least_sure, mask_ratio
from tokenmark.contracts import MethodError

__all__ = ["MaskedSampling", "SamplerSettings", "mask_ratio"]

POWER = 3.0
"""Exponent of the power-cosine schedule: the release's default, which its script does not change."""


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """What a sampling run may choose (`generate`, modeling/maskgit.py:111-193)."""

    steps: int = 8
    """Forward passes; of twice the images where there is guidance."""
    temperature: float = 4.5
    """Scale of the Gumbel noise at the start; it falls to 0 at the last step."""
    cfg_scale: float = 3.0
    """Guidance scale in the meaning of the release's schedule; see `guidance_weight`."""
    cfg_schedule: Literal["constant", "linear", "power-cosine"] = "linear"
    softmax_annealing: bool = True
    """Divide the logits by 0.5 + 0.8 (1 - ratio): on in the release's gFID script, off in its demo."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise MethodError(f"steps must be at least 1, got {self.steps}")
        if self.cfg_schedule not in ("constant", "linear", "power-cosine"):
            raise MethodError(f"cfg_schedule must be constant, linear or power-cosine, got '{self.cfg_schedule}'")
        for name in ("temperature", "cfg_scale"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise MethodError(f"{name} must be a number from 0 on, got {getattr(self, name)}")

    def guidance_weight(self, step: int) -> float:
        """The w of `cond + w (cond - uncond)` at a step counted from 0.

        Quirks of the release: "linear" and "constant" give w itself, but "power-cosine" gives the s of
        `uncond + s (cond - uncond)`, so that w = s - 1; and no growing schedule ever reaches its full scale,
        because both are evaluated at step / steps.
        """
        ratio = step / self.steps
        if self.cfg_schedule == "constant":
            return self.cfg_scale
        if self.cfg_schedule == "linear":
            return ratio * self.cfg_scale
        return (self.cfg_scale - 1.0) * (1.0 - math.cos(math.pi * ratio**POWER)) / 2.0


class MaskedSampling(CodeGenerator):
    """MaskGIT's sampler and loss (arXiv 2202.04200, sections 3.2 and 3.3) over the network that a subclass is.

    Ids are: K codes, the mask token K, then class y as K + 1 + y, and last the dropped class.
    """

    codebook_size: int
    """Number of codes, K."""
    image_seq_len: int
    """Tokens of an image, L."""

    def network(self, ids: Tensor) -> Tensor:
        """Logits `(B, 1 + L, K)` of ids `(B, 1 + L)`, the class first."""
        raise NotImplementedError

    def logits(self, codes: Tensor, classes: Tensor) -> Tensor:
        """Logits `(B, L, K)` of codes `(B, L)`, where K is the mask, for `classes` `(B,)`.

        Class `classes` is the dropped one.
        """
        ids = torch.cat([(classes + self.codebook_size + 1)[:, None], codes], dim=1)
        return at_least_float32(self.network(ids)[:, 1:])

    @property
    def written(self) -> tuple[int, tuple[int, ...]]:
        """Tokens of an image, and their codes."""
        return self.image_seq_len, (self.codebook_size,)

    def steps(self, settings: SamplerSettings) -> int:
        """How often the network is called for a batch."""
        return settings.steps

    @torch.no_grad()
    def generate(
        self,
        labels: Tensor,
        settings: SamplerSettings,
        noise: Noise,
        watch: Watch,
        entering: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Codes `(B, L)` for `labels` `(B,)`; `entering` sees the codes, K where masked, that every step starts from.

        Noise: uniform `tokens` `(B, L, K)` and `confidence` `(B, L)` of every step but the last.
        """
        length = self.image_seq_len
        codes = torch.full((len(labels), length), self.codebook_size, device=labels.device)
        for step in range(settings.steps):
            if entering is not None:
                entering(codes)
            ratio = (step + 1) / settings.steps
            logits = watch.see(self._guided(codes, labels, settings.guidance_weight(step)))
            if settings.softmax_annealing:
                logits = logits / (0.5 + 0.8 * (1.0 - ratio))
            masked = codes == self.codebook_size
            if step + 1 == settings.steps:
                # Both noises have one temperature, which is 0 here: the likeliest codes are taken, and all are kept.
                return torch.where(masked, logits.argmax(-1), codes)
            temperature = settings.temperature * (1.0 - ratio)
            drawn = (logits + temperature * _noise(noise, "tokens", step, logits)).argmax(-1)
            # The confidence is the tempered, guided logit itself, and not a probability.
            confidence = logits.gather(-1, drawn[..., None]).squeeze(-1)
            confidence = confidence + temperature * _noise(noise, "confidence", step, confidence)
            again = least_sure(confidence, masked, math.floor(length * mask_ratio(ratio)))
            codes = torch.where(masked, drawn, codes).masked_fill(again, self.codebook_size)
        return codes

    def _guided(self, codes: Tensor, labels: Tensor, weight: float) -> Tensor:
        if weight == 0.0:
            return self.logits(codes, labels)
        dropped = torch.full_like(labels, self.classes)
        both = self.logits(torch.cat([codes, codes]), torch.cat([labels, dropped]))
        conditional, unconditional = both.chunk(2)
        return conditional + weight * (conditional - unconditional)

    def loss(
        self,
        codes: Tensor,
        labels: Tensor,
        generator: torch.Generator | None = None,
        *,
        class_dropout: float = 0.1,
        label_smoothing: float = 0.1,
    ) -> Tensor:
        """Cross-entropy at masked places (arXiv 2202.04200, eq. 1), a scalar.

        Each image masks a share of its codes `(B, L)` that follows the arccos schedule at a uniform time, and drops
        its label with probability `class_dropout` (classifier-free guidance). Random numbers come from a CPU
        `generator`.
        """
        batch, length = codes.shape
        times = torch.rand(batch, generator=generator)
        count = (length * torch.acos(times) / (math.pi * 0.5)).round().clamp(min=1)
        order = torch.rand(batch, length, generator=generator).argsort(dim=1).argsort(dim=1)
        masked = (order < count[:, None]).to(codes.device)
        dropped = (torch.rand(batch, generator=generator) < class_dropout).to(labels.device)
        classes = labels.masked_fill(dropped, self.classes)
        logits = self.logits(codes.masked_fill(masked, self.codebook_size), classes)
        return functional.cross_entropy(logits[masked], codes[masked], label_smoothing=label_smoothing)


def _noise(noise: Noise, name: str, step: int, like: Tensor) -> Tensor:
    """Standard Gumbel noise of the shape and number type of `like` `(B, ...)`."""
    return gumbel(noise.uniform(name, step, *like.shape[1:]).to(like))
