"""Which codes of a grid a masked generator decides when: by Halton's points, or by its own confidence.

Arithmetic is that of Halton-MaskGIT's release (Sampler/halton_sampler.py and its confidence sampler), which
arXiv 2503.17076 compares in section 4.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from reference_impls.layers.class_generator import Watch
from reference_impls.layers.noise import Noise, drawn_by_race, gumbel
from tokenmark.contracts import MethodError

__all__ = ["HaltonSettings", "decided_after", "halton_order", "sampled_codes"]

POINTS = 10_000
"""How many of Halton's points are looked at; they reach every cell of the grids that are in use."""
BASES = 2, 3
WARM = 0.5
"""What the temperature is multiplied by during its warm-up."""

Network = Callable[[Tensor, Tensor], Tensor]
"""Codes `(B, L)` and classes `(B,)` to logits `(B, L, K + 1)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HaltonSettings:
    """What a sampling run may choose; names are the release's."""

    sampler: Literal["halton", "confidence"] = "halton"
    steps: int = 32
    """Forward passes (of two images each with guidance)."""
    w: float = 1.0
    """Guidance: (1 + w) cond - w uncond; with "confidence", w grows from 0 at the first step to itself at the last."""
    sm_temp_min: float = 1.0
    """What the logits are MULTIPLIED by at the first step: above 1 is more certain, other than the name says."""
    sm_temp_max: float = 1.0
    """The same at the last step."""
    temp_pow: float = 1.0
    """Power to which the factors between them are raised."""
    temp_warmup: int = 0
    """For how many steps, from the first on, half the factor is used."""
    randomize: bool = True
    """Whether every image begins at a drawn place of the Halton order (and wraps around); not with "confidence"."""
    top_k: int = 0
    """Draw among so many likeliest codes; 0 for all of them."""
    r_temp: float = 4.5
    """Scale of the Gumbel noise on the confidence at the first step; it falls to 0 at the last."""

    def __post_init__(self) -> None:
        if self.sampler not in ("halton", "confidence"):
            raise MethodError(f"sampler must be halton or confidence, got '{self.sampler}'")
        if self.steps < 1:
            raise MethodError(f"steps must be at least 1, got {self.steps}")
        if not math.isfinite(self.w):
            raise MethodError(f"w must be finite, 0 being no guidance, got {self.w}")
        for name in ("top_k", "temp_warmup", "temp_pow", "r_temp"):
            if not 0 <= getattr(self, name) < math.inf:
                raise MethodError(f"{name} must not be negative, and finite, got {getattr(self, name)}")
        for name in ("sm_temp_min", "sm_temp_max"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise MethodError(f"{name} must be above 0, and finite, got {getattr(self, name)}")

    def progress(self, step: int) -> float:
        """From 0 at the first step to 1 at the last."""
        return step / max(self.steps - 1, 1)

    def factor(self, step: int) -> float:
        """What the logits of a step are multiplied by."""
        place = self.sm_temp_min + (self.sm_temp_max - self.sm_temp_min) * self.progress(step)
        factor: float = place**self.temp_pow
        return factor * WARM if step < self.temp_warmup else factor

    def guidance(self, step: int) -> float:
        """The w of a step."""
        return self.w if self.sampler == "halton" else self.w * self.progress(step)


@lru_cache(maxsize=8)
def halton_order(side: int) -> Tensor:
    """The cells of a grid in the order in which Halton's points (bases 2 and 3) reach them: `(side**2, 2)` int64.

    Rows of (row, column). Points are float32 numbers, as in the release: some lie on the border of two cells.
    """
    coordinates = [np.array([_mirrored(place, base) for place in range(1, POINTS + 1)], np.float32) for base in BASES]
    cells = np.floor(np.stack(coordinates, axis=1) * np.float32(side)).astype(np.int64)
    _, first = np.unique(cells, axis=0, return_index=True)
    if len(first) != side**2:
        raise MethodError(f"{POINTS} of Halton's points do not reach every cell of a {side}x{side} grid")
    return torch.from_numpy(cells[np.sort(first)])


def _mirrored(number: int, base: int) -> float:
    """The digits of `number` in `base`, mirrored at the point."""
    mirrored, scale = 0, 1
    while number:
        number, digit = divmod(number, base)
        mirrored, scale = mirrored * base + digit, scale * base
    return mirrored / scale


def decided_after(settings: HaltonSettings, length: int) -> list[int]:
    """How many of `length` codes are decided after every step: the arccos schedule (MaskGIT, arXiv 2202.04200).

    The two samplers read it at other times: "halton" at (step + 1) / steps and at least one more at every step,
    "confidence" at step / (steps - 1) and at least one.
    """
    if settings.sampler == "halton":
        times = [(step + 1) / settings.steps for step in range(settings.steps)]
        least = list(range(1, settings.steps + 1))
    else:
        times = [settings.progress(step) for step in range(settings.steps - 1)] + [1.0]
        least = [1] * settings.steps
    shares = [1.0 - math.acos(time) / (math.pi * 0.5) for time in times]
    return [min(max(low, int(share * length)), length) for low, share in zip(least, shares, strict=True)]


def sampled_codes(
    network: Network,
    labels: Tensor,
    *,
    side: int,
    codes: int,
    dropped: int,
    settings: HaltonSettings,
    noise: Noise,
    watch: Watch,
    each: Callable[[Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Codes `(B, side * side)` for `labels` `(B,)`, from given noise; some may still be the mask.

    Args:
        network: What predicts.
        labels: Classes.
        side: Codes of a side.
        codes: Number of codes, K; the mask is code K.
        dropped: The class of no class.
        settings: What the run chose.
        noise: Uniform "tokens" of every step `(L, K + 1)` or `(L, top_k)`, "start" of the order, "confidence" `(L,)`.
        watch: Sees every step's logits.
        each: Sees what every step drew, and the codes after it.
    """
    length = side**2
    decided = decided_after(settings, length)
    ranks = _ranks(labels, side, settings, noise) if settings.sampler == "halton" else None
    found = torch.full((len(labels), length), codes, device=labels.device)
    for step in range(settings.steps):
        logits = _guided(network, found, labels, dropped, settings.guidance(step))
        probabilities = (watch.see(logits) * settings.factor(step)).softmax(-1)
        drawn = _drawn(probabilities, settings.top_k, noise, step)
        if ranks is not None:
            due = (ranks < decided[step]) & (ranks >= (decided[step - 1] if step else 0))
        else:
            # Quirk of the release: what is decided stays so, but the code there is drawn anew at every step.
            confidence = _confidence(probabilities, drawn, settings, noise, step)
            confidence = confidence.masked_fill(found != codes, torch.inf)
            due = confidence >= confidence.topk(decided[step], dim=1).values[:, -1:]
        found = torch.where(due, drawn, found)
        if each is not None:
            each(drawn, found)
    return found


def _guided(network: Network, codes: Tensor, labels: Tensor, dropped: int, weight: float) -> Tensor:
    """Logits; both halves run as one batch, and the second not at all where it has no weight."""
    if weight == 0.0:
        return network(codes, labels)
    both = network(torch.cat([codes, codes]), torch.cat([labels, torch.full_like(labels, dropped)]))
    told, untold = both.chunk(2)
    return (1.0 + weight) * told - weight * untold


def _drawn(probabilities: Tensor, top_k: int, noise: Noise, step: int) -> Tensor:
    """Codes `(B, L)` drawn from `(B, L, K + 1)`."""
    if not top_k:
        uniform = noise.uniform("tokens", step, *probabilities.shape[1:])
        return drawn_by_race(probabilities, uniform.to(probabilities))
    best, indices = probabilities.topk(min(top_k, probabilities.shape[-1]), dim=-1)
    uniform = noise.uniform("tokens", step, *best.shape[1:])
    places = drawn_by_race(best / best.sum(-1, keepdim=True), uniform.to(best))
    return indices.gather(-1, places.unsqueeze(-1)).squeeze(-1)


def _ranks(labels: Tensor, side: int, settings: HaltonSettings, noise: Noise) -> Tensor:
    """When every code of an image has its turn, `(B, L)` or `(1, L)`, counted from 0."""
    order = halton_order(side).to(labels.device)
    length = len(order)
    turns = torch.empty(length, dtype=torch.int64, device=labels.device)
    turns[order[:, 0] * side + order[:, 1]] = torch.arange(length, device=labels.device)
    if not settings.randomize:
        return turns.unsqueeze(0)
    # Rolled by r, the order begins with its last r places.
    roll = (noise.uniform("start", 0) * length).long().clamp(max=length - 1)
    return (turns + roll.unsqueeze(1)) % length


def _confidence(probabilities: Tensor, drawn: Tensor, settings: HaltonSettings, noise: Noise, step: int) -> Tensor:
    """Logarithms of the drawn codes' probabilities, and noise, `(B, L)`."""
    logs = probabilities.gather(-1, drawn.unsqueeze(-1)).squeeze(-1).log()
    temperature = settings.r_temp * (1.0 - settings.progress(step))
    return logs + temperature * gumbel(noise.uniform("confidence", step, drawn.shape[1]).to(logs))
