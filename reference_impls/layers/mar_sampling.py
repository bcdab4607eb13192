"""What MAR's samplers share: how many tokens an iteration writes, how strongly it is guided, and how it draws them."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from reference_impls.layers.class_generator import Watch
from reference_impls.layers.denoising_mlp import TRAINING_STEPS, DenoisingMLP, cosine_betas
from reference_impls.layers.diffusion import RespacedDiffusion, guide, respaced_steps
from reference_impls.layers.noise import Noise
from tokenmark.contracts import MethodError

__all__ = [
    "CfgSchedule",
    "Entering",
    "Iteration",
    "MarSettings",
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
    "write_latents",
    "write_tokens",
]

CfgSchedule: TypeAlias = Literal["linear", "constant"]
"""Whether guidance grows with the share of tokens that are written."""

Entering: TypeAlias = Callable[[Tensor, float], None]
"""Sees what an iteration starts from: the places that are written, `(B, n)`, and its guidance."""


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


@dataclass(frozen=True, slots=True)
class MarSettings:
    """What a sampling run may choose (`sample_tokens`, models/mar.py of LTH14/mar)."""

    steps: int = 256
    """Passes of the backbone; with as many as tokens, each writes one."""
    cfg_scale: float = 2.9
    """Guidance of the head; 1 is none, and then there is no pass without a class."""
    cfg_schedule: CfgSchedule = "linear"
    temperature: float = 1.0
    """What the noise of every diffusion step is multiplied by."""
    diffusion_steps: int = 100
    """Steps of the head for every token, of the 1000 that it was trained in."""

    def __post_init__(self) -> None:
        check_settings(
            steps=self.steps, temperature=self.temperature, cfg_schedule=self.cfg_schedule, scales=(self.cfg_scale,)
        )
        cosine_diffusion(self.diffusion_steps)

    @property
    def guided(self) -> bool:
        """Whether the backbone is asked without a class, too."""
        return self.cfg_scale != 1.0

    def iterations(self, length: int) -> list[Iteration]:
        """Those that write `length` tokens."""
        return iterations(length, self.steps, self.cfg_scale, self.cfg_schedule)


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


def write_tokens(
    tokens: Tensor,
    orders: Tensor,
    passes: Iterable[Iteration],
    look: Callable[[Tensor, Tensor], Tensor],
    draw: Callable[[Tensor, Tensor, float], Tensor],
    *,
    guided: bool,
    entering: Entering | None = None,
) -> Tensor:
    """Tokens `(B, N, C)` that are written iteration after iteration.

    Args:
        tokens: What stands where none is written yet.
        orders: In which order they are written, int64 `(B, N)`, the last first.
        passes: The iterations.
        look: Features `(B, N, D)` of tokens, of which those at places `(B, n)` are written; with guidance of twice as
            many, the second half without a class.
        draw: New tokens `(B, n, C)` for features of them, likewise, their places, and the scale of guidance.
        guided: Whether there is guidance.
        entering: Sees what every iteration starts from.
    """
    copies = 2 if guided else 1
    for now in passes:
        visible, places = visible_of(orders, now.masked), orders[:, now.left : now.masked]
        if entering is not None:
            entering(visible, now.scale)
        features = look(tokens.repeat(copies, 1, 1), visible.repeat(copies, 1))
        tokens = placed(tokens, places, draw(picked(features, places.repeat(copies, 1)), places, now.scale))
    return tokens


def write_latents(
    head: DenoisingMLP,
    look: Callable[[Tensor, Tensor], Tensor],
    length: int,
    settings: MarSettings,
    noise: Noise,
    watch: Watch,
    entering: Entering | None = None,
    *,
    stage: str = "",
    drawing: Callable[[Tensor, Tensor], None] | None = None,
) -> Tensor:
    """`length` tokens `(B, N, C)` that `head` draws from what `look` gives, as `write_tokens` takes it.

    Noise is drawn per place and not per iteration, so that it is three draws for an image: uniform "order" `(N,)`,
    Gaussian "start" `(N, C)` and "steps" `(T, N, C)`, each called with `stage` in front. `drawing` sees the features
    of every iteration's tokens, and their places.
    """
    size = (length, head.channels)
    orders = drawn_orders(noise, f"{stage}order", length)
    starts = noise.normal(f"{stage}start", 0, *size)
    changes = noise.normal(f"{stage}steps", 0, settings.diffusion_steps, *size)
    diffusion = cosine_diffusion(settings.diffusion_steps)
    empty = torch.zeros_like(starts, dtype=head.cond_embed.weight.dtype)

    def draw(features: Tensor, places: Tensor, scale: float) -> Tensor:
        if drawing is not None:
            drawing(features, places)
        start = picked(starts, places).to(empty.dtype)
        noises = step_noises(changes, places, settings.temperature)
        return watch.see(denoise_tokens(head, diffusion, features, start, noises, scale))

    passes = settings.iterations(length)
    return write_tokens(empty, orders, passes, look, draw, guided=settings.guided, entering=entering)
