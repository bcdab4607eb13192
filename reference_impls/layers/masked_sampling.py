"""MaskGIT's parallel decoding and its training loss, for any network that predicts masked codes.

The arithmetic is that of TiTok's release (modeling/maskgit.py of bytedance/1d-tokenizer).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.token_checks import pack_codes
from tokenmark.contracts import MethodError, Tokenizer

__all__ = ["MaskedSampling", "SamplerSettings", "mask_ratio"]

Noise = Callable[[int], tuple[Tensor, Tensor]]
"""Uniform noise in [0, 1) of a step: for the tokens `(B, L, K)` and for the confidence `(B, L)`."""

POWER = 3.0
"""Exponent of the power-cosine schedule: the release's default, which its script does not change."""


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """What a sampling run may choose (`generate`, modeling/maskgit.py:111-193)."""

    steps: int = 8
    """Forward passes (twice that many with guidance)."""
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


def mask_ratio(ratio: float) -> float:
    """Share of tokens that are masked when `ratio` of the way is done: the arccos schedule."""
    return math.acos(ratio) / (math.pi * 0.5)


class MaskedSampling(nn.Module):
    """MaskGIT's sampler and loss (arXiv 2202.04200, sections 3.2 and 3.3) over the network that a subclass is.

    Ids are: K codes, the mask token K, then class y as K + 1 + y, and last the dropped class.
    """

    _tokenizer: tuple[Tokenizer]
    codebook_size: int
    image_seq_len: int
    condition_num_classes: int

    def bind(self, tokenizer: Tokenizer, *, codebook_size: int, image_seq_len: int, condition_num_classes: int) -> None:
        """Join the network, once it is built, to its tokenizer, which must read the codes that it writes.

        The tokenizer is not a submodule: it is neither moved nor saved with the generator.

        Args:
            tokenizer: What turns codes into images; MethodError if it reads other codes or another number of them.
            codebook_size: Number of codes, K.
            image_seq_len: Tokens of an image, L.
            condition_num_classes: Number of classes.
        """
        info = tokenizer.info
        if info.codebook_sizes != (codebook_size,) or info.max_tokens != image_seq_len:
            raise MethodError(
                f"this generator writes {image_seq_len} tokens of {codebook_size} codes, the tokenizer reads "
                f"{info.max_tokens} of {info.codebook_sizes}"
            )
        # A tuple, because nn.Module would register a bare module and save its weights with the generator's.
        self._tokenizer = (tokenizer,)
        self.codebook_size = codebook_size
        self.image_seq_len = image_seq_len
        self.condition_num_classes = condition_num_classes

    @property
    def parameters_total(self) -> int:
        """Parameters of the generator, its tokenizer left out."""
        return sum(parameter.numel() for parameter in self.parameters())

    def network(self, ids: Tensor) -> Tensor:
        """Logits `(B, 1 + L, K)` of ids `(B, 1 + L)`, the class first."""
        raise NotImplementedError

    def logits(self, codes: Tensor, classes: Tensor) -> Tensor:
        """Logits `(B, L, K)` of codes `(B, L)`, where K is the mask, for `classes` `(B,)`.

        Class `condition_num_classes` is the dropped one.
        """
        ids = torch.cat([(classes + self.codebook_size + 1)[:, None], codes], dim=1)
        return at_least_float32(self.network(ids)[:, 1:])

    @torch.no_grad()
    def sample(self, labels: Tensor, generators: Sequence[torch.Generator], settings: SamplerSettings) -> Tensor:
        """Images `(B, 3, S, S)` in [0, 1] for `labels` (int64, `(B,)`), each drawn from its own generator.

        Raises MethodError for labels that are not classes, or where labels and generators are not equally many.
        """
        if labels.dtype != torch.int64 or labels.dim() != 1:
            raise MethodError(f"labels must be int64 (B,), got {labels.dtype} {tuple(labels.shape)}")
        if len(generators) != len(labels):
            raise MethodError(f"give one generator per label: got {len(generators)} for {len(labels)}")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.condition_num_classes:
            raise MethodError(f"labels must be 0 to {self.condition_num_classes - 1}")
        codes = self.generate(labels, settings, lambda _step: self._draw(generators))
        return self._tokenizer[0].decode(pack_codes(codes, self.codebook_size))

    def _draw(self, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        length, codes = self.image_seq_len, self.codebook_size
        draws = [
            (
                torch.rand(length, codes, generator=generator, device=generator.device),
                torch.rand(length, generator=generator, device=generator.device),
            )
            for generator in generators
        ]
        if not draws:
            return torch.zeros(0, length, codes), torch.zeros(0, length)
        return torch.stack([tokens for tokens, _ in draws]), torch.stack([confidence for _, confidence in draws])

    @torch.no_grad()
    def generate(
        self,
        labels: Tensor,
        settings: SamplerSettings,
        noise: Noise,
        entering: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Codes `(B, L)` for `labels`, from given noise; `entering` sees the codes that every step starts from."""
        codes = torch.full((len(labels), self.image_seq_len), self.codebook_size, device=labels.device)
        for step in range(settings.steps):
            if entering is not None:
                entering(codes)
            ratio = (step + 1) / settings.steps
            logits = self._guided(codes, labels, settings.guidance_weight(step))
            if settings.softmax_annealing:
                logits = logits / (0.5 + 0.8 * (1.0 - ratio))
            # One temperature for both noises; 0 at the last step, which therefore takes the likeliest codes.
            temperature = settings.temperature * (1.0 - ratio)
            tokens, confidences = (_gumbel(part.to(logits)) * temperature for part in noise(step))
            masked = codes == self.codebook_size
            drawn = (logits + tokens).argmax(-1)
            # The confidence is the tempered, guided logit itself, and not a probability.
            confidence = logits.gather(-1, drawn[..., None]).squeeze(-1) + confidences
            codes = torch.where(masked, drawn, codes)
            if step + 1 < settings.steps:
                codes = self._mask_again(codes, confidence.masked_fill(~masked, torch.inf), masked, ratio)
        return codes

    def _guided(self, codes: Tensor, labels: Tensor, weight: float) -> Tensor:
        if weight == 0.0:
            return self.logits(codes, labels)
        dropped = torch.full_like(labels, self.condition_num_classes)
        both = self.logits(torch.cat([codes, codes]), torch.cat([labels, dropped]))
        conditional, unconditional = both.chunk(2)
        return conditional + weight * (conditional - unconditional)

    def _mask_again(self, codes: Tensor, confidence: Tensor, masked: Tensor, ratio: float) -> Tensor:
        # The release reads the number of masked tokens from the first image of the batch for all of them. Every
        # image counts its own here: the same number, unless confidences tie, and then the batch does not matter.
        most = (masked.sum(1) - 1).clamp(min=1)
        count = most.clamp(max=max(1, math.floor(self.image_seq_len * mask_ratio(ratio))))
        cut_off = confidence.sort(dim=1).values.gather(1, (count - 1)[:, None])
        return codes.masked_fill(confidence <= cut_off, self.codebook_size)

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
        classes = labels.masked_fill(dropped, self.condition_num_classes)
        logits = self.logits(codes.masked_fill(masked, self.codebook_size), classes)
        return functional.cross_entropy(logits[masked], codes[masked], label_smoothing=label_smoothing)


def _gumbel(uniform: Tensor) -> Tensor:
    return -torch.log((-torch.log(uniform.clamp(min=1e-20))).clamp(min=1e-20))
