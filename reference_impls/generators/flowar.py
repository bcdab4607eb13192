"""FlowAR: next-scale prediction over continuous latents, each scale drawn by flow matching.

Built from the paper (arXiv 2412.15205) and descriptions of its release, whose checkpoints were not at hand: keys are
this module's own. What neither says, and what was taken:

- heads of the flow network end in a norm that time and features modulate, as MAR's head does;
- in its blocks with cross-attention, that is pre-norm and without a gate, and its queries and keys are turned too;
- a coarser scale's cell has the rotary position of the first of the finest cells that it covers;
- 50 steps are 50 steps of Euler's method, though by the other rule 25 are 24.

So built, S has 170 M parameters, L 587 M (printed: 589 M) and H 1.9 B.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reference_impls.layers.class_generator import ClassGenerator, Watch
from reference_impls.layers.flow import classifier_free, euler, uniform_times
from reference_impls.layers.flowar_network import FlowarNetwork, shown_to_next
from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.layers.noise import Noise
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.token_checks import pack_latents
from reference_impls.tokenizers.mar_vae import LATENT_SCALE
from tokenmark.contracts import GeneratorMethod, MethodError, Paper, Preset, Tokenizer, Variant

__all__ = ["METHOD", "Flowar", "FlowarSettings", "build", "sampling_times"]

TICKS = 1000
"""The network reads times as whole numbers, of which this many are 1."""
UNIFORM = 50
"""The only number of steps whose times are evenly spaced."""


@dataclass(frozen=True, slots=True)
class FlowarSettings:
    """What a sampling run may choose (the release's evaluation commands)."""

    steps: int = 25
    """As the release counts them; see `sampling_times`."""
    cfg_scale: float = 2.4
    """Guidance of the velocity at the finest scale, `uncond + w (cond - uncond)`; it grows from 1 at the coarsest."""
    guidance_limit: float = 0.9
    """The latest time, of those from 1 (noise) to 0 (data), at which the velocity is guided."""

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise MethodError(f"steps must be at least 2, got {self.steps}")
        if not 1.0 <= self.cfg_scale < float("inf"):
            raise MethodError(f"cfg_scale must be 1 (none) or more, got {self.cfg_scale}")
        if not 0.0 <= self.guidance_limit <= 1.0:
            raise MethodError(f"guidance_limit must be 0 to 1, got {self.guidance_limit}")

    def guidance(self, scale: int, scales: int) -> float:
        """The w of scale number `scale` of so many."""
        return 1.0 + (self.cfg_scale - 1.0) * scale / max(1, scales - 1)

    def guides(self, scales: int) -> bool:
        """Whether any of so many scales asks the dropped class at any time."""
        last = sampling_times(self.steps)[-2]
        return self.cfg_scale != 1.0 and scales > 1 and last <= self.guidance_limit


def sampling_times(steps: int) -> list[float]:
    """The times that a scale is carried through, from 1 (noise) to 0 (data).

    50 steps are evenly spaced. Otherwise half of them, rounded down, are points from 1 to 0.3, and one more are points
    from 0.25 to 0: with 25 or 24 there are 25 points, and so 24 steps of Euler's method.
    """
    if steps == UNIFORM:
        return uniform_times(steps)
    half = steps // 2
    early, late = (
        torch.linspace(first, last, count, dtype=torch.float64, device="cpu").tolist()
        for first, last, count in ((1.0, 0.3, half), (0.25, 0.0, half + 1))
    )
    return [*early, *late]


class Flowar(FlowarNetwork, ClassGenerator):
    """Scale-wise autoregression with flow matching (arXiv 2412.15205).

    Args:
        classes: Number of classes.
        latent_scale: What the tokenizer's latents were multiplied with.
        network: The other arguments of `FlowarNetwork`.
    """

    def __init__(self, *, classes: int, latent_scale: float = LATENT_SCALE, **network: Any) -> None:
        super().__init__(classes=classes, **network)
        self.classes, self.latent_scale = classes, latent_scale

    def steps(self, settings: FlowarSettings) -> int:  # noqa: ARG002  as often whatever they are
        """Calls of the transformer, one for every scale; the flow network's, one a step of Euler's, do not count."""
        return len(self.scales)

    def draw(self, labels: Tensor, noise: Noise, settings: FlowarSettings, watch: Watch) -> Tensor:
        """Images `(B, 3, S, S)` in [0, 1]."""
        latents = self.generate(labels, settings, noise, watch) / self.latent_scale
        exact = torch.float64 if self.number_type == torch.float64 else torch.float32
        return self.tokenizer.decode(pack_latents(latents.to(exact)))

    @torch.no_grad()
    def generate(self, labels: Tensor, settings: FlowarSettings, noise: Noise, watch: Watch) -> Tensor:
        """Scaled latents `(B, N, C)` of the finest scale for `labels`; `watch` sees every velocity.

        Steps are added up in float64, as in the release, whatever the network computes in.
        """
        guided = settings.guides(len(self.scales))
        both = torch.cat([labels, torch.full_like(labels, self.classes)]) if guided else labels
        classes, kept = self.class_emb(both).unsqueeze(1), self.caches()
        rows, start, scales = classes.expand(-1, self.scales[0] ** 2, -1), 0, list[Tensor]()
        for scale, side in enumerate(self.scales):
            if scale > 0:
                coarse = as_grid(scales[-1], self.scales[scale - 1])
                shown = as_rows(shown_to_next(coarse, self.scales[-1], side))
                rows = self.z_proj(shown.to(self.number_type)).repeat(2 if guided else 1, 1, 1)
            features = self.flow.cond_embed(self.run(rows, classes, start, kept))
            fresh = noise.normal("start", scale, side * side, self.channels).double()
            scales.append(self.carried(fresh, features, scale, settings, watch))
            start += side * side
        return scales[-1]

    def carried(self, fresh: Tensor, features: Tensor, scale: int, settings: FlowarSettings, watch: Watch) -> Tensor:
        """Latents `(B, n, C)` of scale number `scale` from noise, given embedded features `(B or 2 B, n, D)` of it."""
        times, weight = sampling_times(settings.steps), settings.guidance(scale, len(self.scales))
        ticks = dict(zip(times, self._ticks(times), strict=True))

        def velocity(x: Tensor, time: float) -> Tensor:
            # The dropped class is asked only where its answer counts.
            if weight == 1.0 or time > settings.guidance_limit:
                return watch.see(self.velocity(x, ticks[time], features[: len(x)], scale).double())
            halves = watch.see(self.velocity(x.repeat(2, 1, 1), ticks[time], features, scale).double())
            conditional, unconditional = halves.chunk(2)
            return classifier_free(conditional, unconditional, weight)

        return euler(velocity, fresh, times)

    def loss(self, latents: Tensor, labels: Tensor, noise: Noise, *, class_dropout: float = 0.1) -> Tensor:
        """A scalar: the squared error of the velocities of all scales, each times its share of the finest's cells.

        Every scale's mean squared error weighs s^2 / S^2 (s^2 / 256 in an image of 16x16 latents), and is summed.

        Args:
            latents: Scaled, `(B, N, C)`.
            labels: int64 `(B,)`.
            noise: Uniform `drop` `(B,)`; of each scale uniform `times` `(B,)` and Gaussian `noise` `(B, s^2, C)`.
            class_dropout: Share of the images whose class is dropped, for guidance.
        """
        targets = self.targets(latents)
        labels = torch.where(noise.uniform("drop", 0) < class_dropout, self.classes, labels)
        features = self.flow.cond_embed(self.features(labels, self.inputs(targets)))
        losses = []
        for scale, embedded in enumerate(features.split([side * side for side in self.scales], dim=1)):
            target = as_rows(targets[scale])
            times = noise.uniform("times", scale).to(target)
            fresh = noise.normal("noise", scale, *target.shape[1:]).to(target)
            x = torch.lerp(target, fresh, times[:, None, None])
            velocity = at_least_float32(self.velocity(x, (TICKS * times).floor(), embedded, scale))
            share = (self.scales[scale] / self.scales[-1]) ** 2
            losses.append(share * (velocity - (fresh - target)).square().mean())
        return torch.stack(losses).sum()

    def _ticks(self, times: list[float]) -> tuple[Tensor, ...]:
        # Whole thousandths, cut: but 0.58 must not become 579 because of how it is written in binary.
        whole = [int(round(TICKS * time, 6)) for time in times]
        return torch.tensor(whole, device=self.place).unsqueeze(1).unbind(0)


def build(tokenizer: Tokenizer | None, **network: Any) -> Flowar:
    """A generator that writes for `tokenizer`; `network` are the arguments of `Flowar`.

    Raises MethodError if the tokenizer does not read the latents that these sizes write.
    """
    generator = Flowar(**network)
    generator.attach_latents(tokenizer, generator.scales[-1] ** 2, generator.channels)
    return generator


def _variant(width: int, depth: int, heads: int, *, flow_width: int, flow_depth: int, flow_kind: str) -> Variant:
    return Variant(
        config={
            "scales": (1, 2, 4, 8, 16),
            "channels": 16,
            "classes": 1000,
            "width": width,
            "encoder_depth": depth,
            "decoder_depth": depth,
            "heads": heads,
            "flow_width": flow_width,
            "flow_depth": flow_depth,
            "flow_kind": flow_kind,
        },
        tokenizer="mar-vae/kl16",
        note="built from the paper; the weights of OliverRen/FlowAR on the hub were not loaded",
    )


METHOD = GeneratorMethod(
    id="flowar",
    title="FlowAR",
    idea="Five grids of latents from coarse to fine, each of them drawn from noise at once by flow matching",
    paper=Paper(
        title="FlowAR: Scale-wise Autoregressive Image Generation Meets Flow Matching",
        authors="Sucheng Ren, Qihang Yu, Ju He, Xiaohui Shen, Alan Yuille, Liang-Chieh Chen",
        year=2024,
        url="https://arxiv.org/abs/2412.15205",
    ),
    settings=FlowarSettings,
    build=build,
    variants={
        "s": _variant(768, 6, 12, flow_width=1024, flow_depth=2, flow_kind="spatial"),
        "l": _variant(1024, 8, 16, flow_width=1024, flow_depth=12, flow_kind="cross"),
        "h": _variant(1536, 15, 16, flow_width=1536, flow_depth=12, flow_kind="cross"),
    },
    presets={
        "flowar-s-paper": Preset(
            settings=FlowarSettings(steps=25, cfg_scale=4.3, guidance_limit=0.9),
            variants=("s",),
            printed="the release's evaluation command; the gFID is not at hand",
        ),
        "flowar-l-paper": Preset(
            settings=FlowarSettings(steps=25, cfg_scale=2.4, guidance_limit=0.9),
            variants=("l",),
            printed="arXiv 2412.15205: gFID 1.90",
        ),
        "flowar-h-paper": Preset(
            settings=FlowarSettings(steps=50, cfg_scale=2.4, guidance_limit=0.7),
            variants=("h",),
            printed="arXiv 2412.15205: gFID 1.65",
        ),
    },
)
