"""xAR: flow matching cell after cell, each of them seeing those before it as they came out."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from reference_impls.layers.class_generator import ClassGenerator, Watch
from reference_impls.layers.flow import classifier_free
from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.layers.noise import Noise
from reference_impls.layers.rar_transformer import KeyValues
from reference_impls.layers.token_checks import pack_latents
from reference_impls.layers.xar_transformer import SIDE, XarNetwork, cell_order
from reference_impls.tokenizers.mar_vae import LATENT_SCALE
from tokenmark.contracts import GeneratorMethod, MethodError, Paper, Preset, Release, Tokenizer, Variant

__all__ = ["METHOD", "Xar", "XarSettings", "build", "network_times", "release_arguments", "sampling_times"]

CELLS = SIDE * SIDE
LAST_TIME = 0.04
"""Where the last step starts; it leads to 0 and adds no noise."""
TICKS = 1000
"""The network reads times as whole numbers, of which this many are 1."""


@dataclass(frozen=True, slots=True)
class XarSettings:
    """What a sampling run may choose (the release's evaluation command)."""

    num_steps: int = 50
    """Calls of the network for each of the four cells."""
    cfg: float = 2.3
    """Guidance of the drift at the last cell, `uncond + cfg (cond - uncond)`; it grows from 1 at the first."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise MethodError(f"num_steps must be at least 1, got {self.num_steps}")
        if not 1.0 <= self.cfg < float("inf"):
            raise MethodError(f"cfg must be 1 (none) or more, got {self.cfg}")


def sampling_times(steps: int) -> list[float]:
    """The `steps + 1` times from 1 (noise) to 0 (data): evenly spaced to 0.04, then 0."""
    times: list[float] = torch.linspace(1.0, LAST_TIME, steps, dtype=torch.float64, device="cpu").tolist()
    return [*times, 0.0]


def network_times(times: list[float], number_type: torch.dtype) -> list[int]:
    """`times` as the network reads them: cut to whole thousandths in its own number type, float32 at least.

    That type decides: 0.28 becomes 280 in float32, and 279 in float64.
    """
    exact = torch.float64 if number_type == torch.float64 else torch.float32
    whole: list[int] = (torch.tensor(times, dtype=torch.float64, device="cpu").to(exact) * TICKS).long().tolist()
    return whole


class Xar(XarNetwork, ClassGenerator):
    """Next-X prediction with cells for X (arXiv 2502.20388, sections 3.2 to 3.4).

    A cell of 8x8 latents is drawn from noise along the reversed SDE of the flow from it, given the cells before it,
    which training showed noisy and the sampler shows as they came out.

    It is its own network, because the release stores its keys without a prefix.

    Args:
        latent_scale: What the tokenizer's latents were multiplied with.
        network: The arguments of `XarNetwork`.
    """

    def __init__(self, *, latent_scale: float = LATENT_SCALE, **network: Any) -> None:
        super().__init__(**network)
        self.classes, self.latent_scale = self.class_emb.num_embeddings - 1, latent_scale

    def steps(self, settings: XarSettings) -> int:
        """Calls of the network for a batch, in all cells together."""
        return CELLS * settings.num_steps

    def generate(self, labels: Tensor, settings: XarSettings, noise: Noise, watch: Watch) -> Tensor:
        """Scaled latents `(B, C, G, G)` for `labels`; `watch` sees every velocity.

        The sampler counts in float64, as the release does, whatever the network computes in.
        """
        guided = settings.cfg != 1.0
        both = torch.cat([labels, torch.full_like(labels, self.classes)]) if guided else labels
        caches, times = self.caches(), sampling_times(settings.num_steps)
        ticks = torch.tensor([0, *network_times(times[:-1], self.number_type)], device=self.place)
        done: list[Tensor] = []
        for cell in range(CELLS):
            # The first cell is not guided, and what it leaves in caches the second one's first step makes anew.
            classes, rooms = (labels, None) if cell == 0 else (both, caches)
            scale = 1.0 + (settings.cfg - 1.0) * cell / (CELLS - 1)
            x = noise.normal("start", cell, self.cell, self.channels).double()
            for step, (now, then) in enumerate(pairwise(times)):
                velocity = watch.see(self._guided(x, done, classes, ticks, step, scale, rooms))
                x = x + (then - now) * reversed_drift(velocity, x, now)
                if step + 1 < settings.num_steps:
                    place = cell * (settings.num_steps - 1) + step
                    fresh = noise.normal("steps", place, self.cell, self.channels).double()
                    x = x + (2.0 * now * (now - then)) ** 0.5 * fresh
            done.append(x)
        order = cell_order(self.grid).argsort().to(self.place)
        return as_grid(torch.cat(done, dim=1)[:, order], self.grid)

    def draw(self, labels: Tensor, noise: Noise, settings: XarSettings, watch: Watch) -> Tensor:
        """Images `(B, 3, S, S)` in [0, 1]."""
        rows = as_rows(self.generate(labels, settings, noise, watch)) / self.latent_scale
        exact = torch.float64 if self.number_type == torch.float64 else torch.float32
        return self.tokenizer.decode(pack_latents(rows.to(exact)))

    def _guided(
        self,
        x: Tensor,
        done: list[Tensor],
        classes: Tensor,
        ticks: Tensor,
        step: int,
        scale: float,
        caches: list[KeyValues] | None,
    ) -> Tensor:
        """The velocity of the cell `x` behind those that are `done`, float64; `ticks` are 0 and every step's time."""
        guided, before = len(classes) > len(x), len(done)
        shown, first, at = x, before, ticks[step + 1 : step + 2]
        if step == 0 and before > 0:
            # The cell before goes in once more, finished: later steps read its keys and values from the caches.
            shown, first, at = torch.cat([done[-1], x], dim=1), before - 1, ticks[:2]
        shown = shown.repeat(2, 1, 1) if guided else shown
        velocity = self.velocity(shown, at.expand(len(classes), -1), classes, first, caches)[:, -self.cell :].double()
        if not guided:
            return velocity
        conditional, unconditional = velocity.chunk(2)
        return classifier_free(conditional, unconditional, scale)


def reversed_drift(velocity: Tensor, x: Tensor, time: float) -> Tensor:
    """Drift of the SDE that has the flow's marginals and a diffusion of 2t: the velocity minus t times the score.

    The score of x = (1 - t) data + t noise, whose velocity is v, is -(x + (1 - t) v) / t (SiT, arXiv 2401.08740,
    section 2), so that guidance of the velocity is guidance of the drift.
    """
    return velocity + (x + (1.0 - time) * velocity)


def build(tokenizer: Tokenizer | None, **network: Any) -> Xar:
    """A generator that writes for `tokenizer`; `network` are the arguments of `Xar`.

    Raises MethodError if the tokenizer does not read the latents that these sizes write.
    """
    if network["grid"] % SIDE:
        raise MethodError(f"the side of the grid must be a multiple of {SIDE}, got {network['grid']}")
    generator = Xar(**network)
    generator.attach_latents(tokenizer, generator.length, generator.channels)
    return generator


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Xar` for those of the release, which are MAR's."""
    sides = {
        f"{side}_{own}": config[f"{side}_{theirs}"]
        for side in ("encoder", "decoder")
        for own, theirs in (("dim", "embed_dim"), ("depth", "depth"), ("heads", "num_heads"))
    }
    return {
        "grid": config["img_size"] // config["vae_stride"] // config["patch_size"],
        "channels": config["vae_embed_dim"],
        "classes": config["class_num"],
        "mlp_ratio": config["mlp_ratio"],
        **sides,
    }


def _variant(size: str, width: int, depth: int, heads: int) -> Variant:
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("dim", width), ("depth", depth), ("heads", heads))
    }
    return Variant(
        config={"grid": 16, "channels": 16, "classes": 1000, **sides},
        tokenizer="mar-vae/kl16",
        release=Release("OliverRen/xAR", f"xAR-{size}.pth"),
        note="no licence is stated for code or weights",
    )


METHOD = GeneratorMethod(
    id="xar",
    title="xAR",
    idea="Four cells of latents one after the other, each by flow matching from noise, given the cells before it",
    paper=Paper(
        title="Beyond Next-Token: Next-X Prediction for Autoregressive Visual Generation",
        authors="Sucheng Ren, Qihang Yu, Ju He, Xiaohui Shen, Alan Yuille, Liang-Chieh Chen",
        year=2025,
        url="https://arxiv.org/abs/2502.20388",
    ),
    settings=XarSettings,
    build=build,
    variants={
        "b": _variant("B", 768, 8, 12),
        "l": _variant("L", 1024, 16, 16),
        "h": _variant("H", 1280, 20, 16),
    },
    presets={
        f"xar-{size}-paper": Preset(
            settings=settings,
            variants=(size,),
            classes="sorted",
            seed="1 + rank",
            batch_size=256,
            printed=f"arXiv 2502.20388: gFID {gfid}",
        )
        for size, settings, gfid in (
            ("b", XarSettings(num_steps=40, cfg=2.7), "1.72"),
            ("l", XarSettings(num_steps=50, cfg=2.3), "1.28"),
            ("h", XarSettings(num_steps=50, cfg=2.2), "1.24"),
        )
    },
)
