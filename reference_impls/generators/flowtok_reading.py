"""FlowTok as read from its paper: a flow from a text's latents to an image's, with no noise to start from.

Built from the paper, and named a reading because it does not fix all of it; no weights of the authors fit. What was
taken where paper and the authors' re-implementation differ, or the paper is silent:

- text: states of CLIP ViT-L/14 at 336 pixels behind the last norm (the re-implementation's);
- text projector: norms behind the sums, 8 heads, MLPs of 1024, GELU; the parameters of the paper's table then agree;
- start: drawn from the text's Gaussian; `source` "mean" takes its mean;
- guidance: v0 + s (v1 - v0), of the bit's two values at the same latents, s = 2; steps: 20 (paper), not 50;
- path: (1 - (1 - 1e-5) t) x0 + t x1; times are encoded as DiT's, t = 1 as 1000; image latents times 1.0143;
- losses: `TrainRules` has the paper's divergence and weight, and the re-implementation's.

The tokenizer of the paper, TA-TiTok with rotary positions and SwiGLU and 77 latents of 16 channels, is not here: the
variants name none, and give latents but no images. `build` takes any tokenizer of as many latents.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.class_generator import Watch
from reference_impls.layers.flow import classifier_free, euler
from reference_impls.layers.flowtok_losses import FlowLosses, TrainRules, contrast, divergence, unpaired
from reference_impls.layers.flowtok_network import FlowTokDiT, TextProjector, align_projector
from reference_impls.layers.noise import Noise
from reference_impls.layers.text_generator import TextGenerator
from reference_impls.layers.token_checks import pack_latents
from tokenmark.contracts import GeneratorMethod, MethodError, Paper, Preset, Prompts, Tokenizer, Variant

__all__ = ["METHOD", "FlowTok", "FlowTokSettings", "build"]

LATENT_SCALE = 1.0143
"""What image latents are multiplied by (the re-implementation's)."""
FIRST_TEMPERATURE = 0.07
"""Of the contrast of texts, before it is learned, as in CLIP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowTokSettings:
    """What a sampling run may choose."""

    steps: int = 20
    """Steps of Euler's method; the re-implementation's evaluation takes 50."""
    cfg_scale: float = 2.0
    """Guidance by the bit; 1 is none, and half the work."""
    source: Literal["drawn", "mean"] = "drawn"
    """Where the flow starts: a draw of the text's Gaussian, or its mean, and then nothing is drawn at all."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise MethodError(f"steps must be at least 1, got {self.steps}")
        if not 0.0 <= self.cfg_scale < math.inf:
            raise MethodError(f"cfg_scale must be a number from 0 on, got {self.cfg_scale}")
        if self.source not in ("drawn", "mean"):
            raise MethodError(f"source must be drawn or mean, got '{self.source}'")


class FlowTok(TextGenerator):
    """FlowTok (arXiv 2503.10772).

    Args:
        length: Tokens of a text and latents of an image, N.
        channels: Of a latent, C.
        width: Channels of the DiT, D.
        depth: Its blocks.
        heads: Attention heads of each.
        text_channels: Of the text's states, E.
        pooled_channels: Of the text as a whole, which has no use here.
        text_depth: Blocks of the text projector.
        text_heads: Attention heads of each.
        text_hidden: Hidden width of their MLPs.
        sigma_min: How much of the start is left at the end of the path.
        latent_scale: What image latents are multiplied by before they are learned.
    """

    def __init__(
        self,
        *,
        length: int,
        channels: int,
        width: int,
        depth: int,
        heads: int,
        text_channels: int,
        pooled_channels: int,
        text_depth: int,
        text_heads: int,
        text_hidden: int,
        sigma_min: float,
        latent_scale: float,
    ) -> None:
        super().__init__()
        self.told = (length, text_channels, pooled_channels)
        self.length, self.channels, self.sigma_min, self.latent_scale = length, channels, sigma_min, latent_scale
        self.text = TextProjector(text_channels, channels, depth=text_depth, heads=text_heads, hidden=text_hidden)
        self.align = align_projector(text_channels, channels)
        self.log_temperature = nn.Parameter(torch.tensor(-math.log(FIRST_TEMPERATURE)))
        self.flow = FlowTokDiT(length=length, channels=channels, width=width, depth=depth, heads=heads)

    def steps(self, settings: FlowTokSettings) -> int:
        """Passes of the DiT; the text is projected once."""
        return settings.steps

    def draw(self, prompts: Prompts, noise: Noise, settings: FlowTokSettings, watch: Watch) -> Tensor:
        """Images `(B, 3, S, S)` in [0, 1] from given noise."""
        latents = self.generate(prompts.states, settings, noise, watch)
        return self.decoded(pack_latents(latents), prompts.states)

    @torch.no_grad()
    def generate(self, states: Tensor, settings: FlowTokSettings, noise: Noise, watch: Watch) -> Tensor:
        """Latents `(B, N, C)`, as the tokenizer reads them, of a text's `states` `(B, N, E)`.

        Noise is Gaussian "text" `(N, C)`, asked for if the start is drawn.
        """
        text, guided = self.text(states), settings.cfg_scale != 1.0
        start = text.mean
        if settings.source == "drawn":
            start = text.drawn(noise.normal("text", 0, self.length, self.channels))
        rows = len(states) * (2 if guided else 1)
        paired = (torch.arange(rows, device=states.device) < len(states)).long()

        def velocity(x: Tensor, time: float) -> Tensor:
            times = torch.full((rows,), time, dtype=x.dtype, device=x.device)
            found: Tensor = self.flow(x.repeat(2, 1, 1) if guided else x, times, paired)
            if guided:
                told, untold = found.chunk(2)
                found = classifier_free(told, untold, settings.cfg_scale)
            return watch.see(found)

        times = [step / settings.steps for step in range(settings.steps + 1)]
        return euler(velocity, start, times) / self.latent_scale

    def losses(
        self, latents: Tensor, states: Tensor, noise: Tensor, times: Tensor, null: Tensor, rules: TrainRules
    ) -> FlowLosses:
        """One differentiable pass.

        Args:
            latents: Of images, as the tokenizer gives them, `(B, N, C)`.
            states: Of their texts, `(B, N, E)`.
            noise: Standard normal, `(B, N, C)`: what texts are drawn with.
            times: `(B,)` in (0, 1).
            null: Whether an image is told that any will do, bool `(B,)`: it learns that of another null one.
            rules: What the losses are.
        """
        text = self.text(states)
        start, kept = text.drawn(noise), 1.0 - self.sigma_min
        target = unpaired(latents.to(start) * self.latent_scale, null)
        place = times.to(start)[:, None, None]
        predicted = self.flow((1.0 - kept * place) * start + place * target, times, (~null).long())
        flow = functional.mse_loss(predicted.to(start), target - kept * start)
        kl = divergence(text, rules.kl)
        told = self.align(states.to(self.log_temperature.dtype))
        align = contrast(told.to(start), start, self.log_temperature.to(start))
        return FlowLosses(flow, kl, align, flow + rules.kl_weight * kl + rules.align_weight * align)


def build(
    tokenizer: Tokenizer | None,
    *,
    width: int,
    depth: int,
    heads: int,
    length: int = 77,
    channels: int = 16,
    text_channels: int = 768,
    pooled_channels: int = 768,
    text_depth: int = 6,
    text_heads: int = 8,
    text_hidden: int = 1024,
    sigma_min: float = 1e-5,
    latent_scale: float = LATENT_SCALE,
) -> FlowTok:
    """A generator that writes for `tokenizer`; without one it gives latents, but no images.

    Raises MethodError if the tokenizer does not read as many latents as a text has tokens.
    """
    if width % heads or text_channels % text_heads:
        raise MethodError(f"widths must be multiples of their heads: {width} of {heads}, {text_channels}, {text_heads}")
    generator = FlowTok(
        length=length,
        channels=channels,
        width=width,
        depth=depth,
        heads=heads,
        text_channels=text_channels,
        pooled_channels=pooled_channels,
        text_depth=text_depth,
        text_heads=text_heads,
        text_hidden=text_hidden,
        sigma_min=sigma_min,
        latent_scale=latent_scale,
    )
    if tokenizer is not None and tokenizer.info.text not in (None, (length, text_channels)):
        raise MethodError(f"this generator is told texts of {(length, text_channels)}, got {tokenizer.info.text}")
    generator.attach_latents(tokenizer, length, channels)
    return generator


NOTE = "no release fits this reading of the paper; its tokenizer, FlowTiTok, is not here: latents, but no images"
SIZES: dict[str, dict[str, Any]] = {
    "b": {"width": 768, "depth": 12, "heads": 12},
    "xl": {"width": 1152, "depth": 28, "heads": 16},
    "h": {"width": 1280, "depth": 36, "heads": 20},
}
SOURCE = "arXiv 2503.10772: Euler's method in 20 steps; its scores are of COCO and MJHQ-30K, none is an ImageNet gFID"

METHOD = GeneratorMethod(
    id="flowtok-reading",
    title="FlowTok (reading)",
    idea="A text's tokens become latents, and flow straight to an image's latents: no noise, no cross-attention",
    paper=Paper(
        title="FlowTok: Flowing Seamlessly Across Text and Image Tokens",
        authors="Ju He, Qihang Yu, Qihao Liu, Liang-Chieh Chen",
        year=2025,
        url="https://arxiv.org/abs/2503.10772",
    ),
    settings=FlowTokSettings,
    build=build,
    text="clip-text-vit-l14-336",
    variants={name: Variant(config=size, note=NOTE) for name, size in SIZES.items()},
    presets={
        "flowtok-reading-paper": Preset(settings=FlowTokSettings(), variants=tuple(SIZES), printed=SOURCE),
        "flowtok-reading-50-steps": Preset(settings=FlowTokSettings(steps=50), variants=tuple(SIZES)),
        "flowtok-reading-unguided": Preset(settings=FlowTokSettings(cfg_scale=1.0), variants=tuple(SIZES)),
    },
)
