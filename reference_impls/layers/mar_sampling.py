"""What MAR's samplers share: how many tokens an iteration writes, how strongly it is guided, and how it draws them."""

import math
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from reference_impls.layers.denoising_mlp import TRAINING_STEPS, DenoisingMLP, cosine_betas
from reference_impls.layers.diffusion import RespacedDiffusion, guide, respaced_steps
from reference_impls.layers.noise import Noise
from tokenmark.contracts import MethodError

__all__ = [
    "CfgSchedule",
    "Iteration",
    "check_settings",
    "cosine_diffusion",
    "denoise_tokens",
    "drawn_orders",
    "iterations",
    "picked",
    "placed",
    "step_noises",
    "visible_of",
    "with_dropped",
]

CfgSchedule: TypeAlias = Literal["linear", "constant"]
"""Whether guidance grows with the share of tokens that are written."""


class Iteration(NamedTuple):
    """One pass of the backbone: of the places in an image's order it writes those from `left` to `masked`."""

    masked: int
    left: int
    scale: float
    """Of guidance; 1 is none."""


def iterations(length: int, steps: int, cfg_scale: float, cfg_schedule: CfgSchedule) -> list[Iteration]:
    """How `length` tokens are written in `steps` iterations (arXiv 2406.11838, section 3.4 and appendix B).

    A cosine says how many are left, but every iteration writes one at least; iterations that would find nothing to
    write, where there are more of them than tokens, are left out. The last one writes all that is left, though its
    guidance is that of one token left.
    """
    found, masked = [], length
    for step in range(steps):
        left = max(1, min(masked - 1, math.floor(length * math.cos(math.pi / 2.0 * (step + 1) / steps))))
        share = (length - left) / length if cfg_schedule == "linear" else 1.0
        last = step == steps - 1
        if last or masked > left:
            found.append(Iteration(masked, 0 if last else left, 1.0 + (cfg_scale - 1.0) * share))
        masked = left
    return found


def check_settings(*, steps: int, temperature: float, cfg_schedule: str, scales: Iterable[float]) -> None:
    """Raise MethodError for a setting that cannot be sampled with."""
    if steps < 1:
        raise MethodError(f"steps must be at least 1, got {steps}")
    if not 0.0 <= temperature < math.inf:
        raise MethodError(f"temperature must be 0 or more, got {temperature}")
    if cfg_schedule not in ("linear", "constant"):
        raise MethodError(f"cfg_schedule must be linear or constant, got '{cfg_schedule}'")
    for scale in scales:
        if not 0.0 <= scale < math.inf:
            raise MethodError(f"guidance scales must be 0 or more, 1 being none, got {scale}")


@cache
def cosine_diffusion(steps: int) -> RespacedDiffusion:
    """The reverse process in `steps` of the training steps; MethodError where there are not so many."""
    return RespacedDiffusion(cosine_betas(TRAINING_STEPS), respaced_steps(TRAINING_STEPS, steps))


def drawn_orders(noise: Noise, name: str, length: int) -> Tensor:
    """An order of `length` places for each image, all equally likely: int64 `(B, length)`, the last written first."""
    return noise.uniform(name, 0, length).argsort(dim=1, stable=True)


def visible_of(orders: Tensor, masked: int) -> Tensor:
    """Places `(B, N - masked)` that are written already when `masked` are not, rising."""
    return orders[:, masked:].sort(dim=1).values


def picked(values: Tensor, places: Tensor) -> Tensor:
    """What `values` `(B, N, C)` hold at `places` `(B, n)`: `(B, n, C)`."""
    return values.gather(1, places.unsqueeze(-1).expand(-1, -1, values.shape[2]))


def placed(tokens: Tensor, places: Tensor, new: Tensor) -> Tensor:
    """`tokens` `(B, N, C)` with `new` ones `(B, n, C)` at `places` `(B, n)`."""
    return tokens.scatter(1, places.unsqueeze(-1).expand_as(new), new.to(tokens.dtype))


def denoise_tokens(
    head: DenoisingMLP,
    diffusion: RespacedDiffusion,
    features: Tensor,
    start: Tensor,
    noises: Iterable[Tensor],
    scale: float,
) -> Tensor:
    """Tokens `(B, n, C)` drawn by the head from noise, each on its own.

    Args:
        head: What denoises them.
        diffusion: In which steps.
        features: `(B, n, D)`; where they are twice as many as images, the second half are those without a class.
        start: Standard normal, `(B, n, C)`.
        noises: What is added at each step, `(B, n, C)`.
        scale: Of guidance, where features are twice as many.
    """
    embedded = head.cond_embed(features.flatten(0, 1))
    guided = len(features) > len(start)

    def model(x: Tensor, times: Tensor) -> Tensor:
        if not guided:
            return head.denoise(x, times[:1], embedded)
        conditional, unconditional = head.denoise(x.repeat(2, 1), times[:1], embedded).chunk(2)
        return guide(conditional, unconditional, scale, head.channels)

    rows = diffusion.sample(model, start.flatten(0, 1), (noise.flatten(0, 1) for noise in noises))
    out: Tensor = rows.unflatten(0, start.shape[:2])
    return out


def step_noises(noise: Tensor, places: Tensor, temperature: float) -> Iterator[Tensor]:
    """What is added to the tokens at `places` `(B, n)` at each diffusion step, of noise `(B, T, N, C)`: `(B, n, C)`."""
    for step in range(noise.shape[1]):
        yield picked(noise[:, step], places) * temperature


def with_dropped(conditions: Tensor, dropped: Tensor, *, guided: bool) -> Tensor:
    """Conditions `(B, W)`, and behind them, if `guided`, as many times the dropped class's `(1, W)`."""
    return torch.cat([conditions, dropped.expand_as(conditions)]) if guided else conditions
