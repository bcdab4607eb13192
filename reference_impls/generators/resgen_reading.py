"""ResGen, as it is read here: predict the sum of a position's masked residual codes, then quantise it again.

No release: a reading of accounts of the paper (arXiv 2412.10208). From there: tokens are masked position by position
from the deepest level up, and how many of each is a multivariate hypergeometric draw; the network reads the sums of
what is not masked, and gives a mixture of Gaussians for the sum of what is, with low-rank means and an affine scale and
shift; its loss is a bound that splits into a classification and a regression; a sampler draws the sums, quantises them
into the masked levels, and unmasks by log-probability and Gumbel noise, coarse to fine. What the paper leaves open, and
what was taken:

- tokens: a residual quantizer of 16 levels of 1024 codes (`levels`, `codebook_size`), part of this module, over the
  continuous latents of KL-16, 16x16 of 16 channels (`grid`, `channels`); it is trained before, by its own losses;
- network: DiT's blocks, modulated by the class, and learned positions (`width`, `depth`, `heads`), of about the paper's
  576 M parameters; it is not told how many levels are masked;
- mixture: 256 components of rank 64 (`components`, `rank`); the bound takes them for equally likely in its shares q;
- schedule: a cosine, or the arc cosine, both in training and in sampling (`schedule`);
- guidance: of the logits, of what makes the means and of the shift; the scale is the class's own (`cfg_scale`, growing
  with the share that is written, `cfg_schedule`);
- draws: the components' temperature and share (`temperature`, `top_p`), and the Gaussian's (`noise_scale`);
- confidence: log-probability of the component and of the normalised Gaussian noise (`confidence`: "normalised"), so
  that a position that is almost written, and therefore narrow, does not always go first, as it does by the "density";
- how many of a position's tokens are unmasked: every masked token has Gumbel noise of its own (`choice_temperature`,
  falling to 0) beside the confidence of its position, the best are counted, and so many of its coarsest are unmasked.
  With noise alone that leaves counts as training draws them.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from reference_impls.generators.var import likeliest
from reference_impls.layers.class_generator import ClassGenerator, Watch
from reference_impls.layers.depth_masks import (
    MaskSchedule,
    counts_of_draw,
    counts_written,
    hidden,
    mask_share,
    masked_after,
)
from reference_impls.layers.dit_blocks import DiTBlock, modulate, modulation
from reference_impls.layers.mixture_head import Mixture, MixtureHead
from reference_impls.layers.noise import Noise, drawn_by_race, gumbel
from reference_impls.layers.residual_quantizer import ResidualQuantizer
from reference_impls.layers.swiglu_blocks import drawn
from reference_impls.layers.token_checks import pack_latents
from reference_impls.tokenizers.mar_vae import LATENT_SCALE
from tokenmark.contracts import GeneratorMethod, MethodError, Paper, Preset, Tokenizer, Variant

__all__ = ["METHOD", "ResgenReading", "ResgenSettings", "build"]

EPS = 1e-6


@dataclass(frozen=True, slots=True)
class ResgenSettings:
    """What a sampling run may choose; the paper tells the steps alone."""

    steps: int = 63
    schedule: MaskSchedule = "cosine"
    """How the share of masked tokens falls."""
    cfg_scale: float = 2.0
    """Guidance, `uncond + s (cond - uncond)`; 1 is none, and half the work."""
    cfg_schedule: Literal["linear", "constant"] = "linear"
    """Whether guidance grows from 1, with the share of tokens that are written."""
    temperature: float = 1.0
    """What the components' logits are divided by."""
    top_p: float = 1.0
    """Draw from the likeliest components whose probabilities make up this share."""
    noise_scale: float = 1.0
    """What the Gaussian noise of the drawn component is multiplied by."""
    confidence: Literal["normalised", "density"] = "normalised"
    """What is unmasked first: see the head of this file."""
    choice_temperature: float = 4.5
    """Of the Gumbel noise beside the confidence at first; it falls to 0 at the last step."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise MethodError(f"steps must be at least 1, got {self.steps}")
        for name, words in (
            ("schedule", ("cosine", "arccos")),
            ("cfg_schedule", ("linear", "constant")),
            ("confidence", ("normalised", "density")),
        ):
            if getattr(self, name) not in words:
                raise MethodError(f"{name} must be {' or '.join(words)}, got '{getattr(self, name)}'")
        for name, least in (("cfg_scale", 1.0), ("noise_scale", 0.0), ("choice_temperature", 0.0)):
            if not least <= getattr(self, name) < math.inf:
                raise MethodError(f"{name} must be {least:g} or more, got {getattr(self, name)}")
        if not 0.0 < self.temperature < math.inf:
            raise MethodError(f"temperature must be above 0, got {self.temperature}")
        if not 0.0 < self.top_p <= 1.0:
            raise MethodError(f"top_p must be above 0, and 1 at most, got {self.top_p}")

    def guidance(self, written: float) -> float:
        """The s where this share of the tokens is written."""
        return 1.0 + (self.cfg_scale - 1.0) * (written if self.cfg_schedule == "linear" else 1.0)


class ResgenReading(ClassGenerator):
    """Masked generation of residual codes by their sums (arXiv 2412.10208); the head of this file says what is read.

    Args:
        grid: Positions of a side.
        channels: Channels of a latent, C.
        levels: Codes of a position, D.
        codebook_size: Codes of a level.
        classes: Number of classes; one row more stands for the dropped one.
        width: Of the network, W.
        depth: Its blocks.
        heads: Attention heads of each.
        components: Of the mixtures.
        rank: Of their means.
        latent_scale: What the tokenizer's latents are multiplied with before they are quantised.
    """

    def __init__(
        self,
        *,
        grid: int,
        channels: int,
        levels: int,
        codebook_size: int,
        classes: int,
        width: int,
        depth: int,
        heads: int,
        components: int,
        rank: int,
        latent_scale: float = LATENT_SCALE,
    ) -> None:
        super().__init__()
        self.length, self.channels, self.levels, self.classes = grid**2, channels, levels, classes
        self.latent_scale = latent_scale
        self.quantize = ResidualQuantizer(levels, codebook_size, channels)
        self.class_emb = nn.Embedding(classes + 1, width)
        self.input_proj, self.positions = nn.Linear(channels, width), drawn(1, self.length, width)
        self.blocks = nn.ModuleList(DiTBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPS, elementwise_affine=False)
        self.ada_lin = modulation(width, 2)
        self.head = MixtureHead(width, components, rank, channels)

    def forward(self, known: Tensor, labels: Tensor) -> Mixture:
        """What the masked codes of every position may add up to, given the sums `known` `(B, L, C)` of the others.

        Labels are int64 `(B,)`, where the number of classes is the dropped one.
        """
        condition = self.class_emb(labels)
        x = self.input_proj(known.to(condition.dtype)) + self.positions
        for block in self.blocks:
            x = block(x, condition)
        shift, scale = self.ada_lin(condition).chunk(2, dim=1)
        out: Mixture = self.head(modulate(self.norm(x), shift, scale))
        return out

    def steps(self, settings: ResgenSettings) -> int:
        """Calls of the network: as many as steps."""
        return settings.steps

    def draw(self, labels: Tensor, noise: Noise, settings: ResgenSettings, watch: Watch) -> Tensor:
        """Images `(B, 3, S, S)` in [0, 1]."""
        codes = self.generate(labels, settings, noise, watch)
        return self.tokenizer.decode(pack_latents(self.quantize.lookup(codes) / self.latent_scale))

    @torch.no_grad()
    def generate(self, labels: Tensor, settings: ResgenSettings, noise: Noise, watch: Watch) -> Tensor:
        """Codes `(B, L, D)` for `labels`; `watch` sees the sums that are drawn."""
        total = self.length * self.levels
        codes = torch.zeros(len(labels), self.length, self.levels, dtype=torch.int64, device=labels.device)
        counts, masked = torch.full_like(codes[..., 0], self.levels), total
        for step, left in enumerate(masked_after(total, settings.steps, settings.schedule)):
            known, _ = self.split(codes, counts)
            mixture = self._guided(known, labels, settings, 1.0 - masked / total)
            z, confidence = self._drawn(mixture, settings, noise, step)
            codes = self.quantize.fill(watch.see(z), codes, self.levels - counts)
            chance = gumbel(noise.uniform("choice", step, self.length, self.levels)).to(confidence)
            heat = settings.choice_temperature * (1.0 - (step + 1) / settings.steps)
            counts = counts_written(counts, confidence.unsqueeze(-1) + heat * chance, left, masked)
            masked = left
        return codes

    def split(self, codes: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """The sums `(B, L, C)` of what is known of codes `(B, L, D)`, and of their deepest `counts` `(B, L)`."""
        rows, masked = self.quantize.rows(codes), hidden(counts, self.levels).unsqueeze(-1)
        return (rows * ~masked).sum(2), (rows * masked).sum(2)

    def loss(
        self,
        latents: Tensor,
        labels: Tensor,
        noise: Noise,
        *,
        class_dropout: float = 0.1,
        schedule: MaskSchedule = "cosine",
    ) -> Tensor:
        """A scalar: the bound on -log p(z) at the positions that have masked codes, on average.

        Args:
            latents: Scaled, `(B, L, C)`.
            labels: int64 `(B,)`.
            noise: Uniform `drop` and `ratio`, `(B,)`, and `tokens` `(B, L * D)`.
            class_dropout: Share of the images whose class is dropped, for guidance.
            schedule: Of the share that is masked at a ratio.
        """
        total = self.length * self.levels
        masked = (total * mask_share(noise.uniform("ratio", 0), schedule)).ceil().clamp(min=1)
        counts = counts_of_draw(noise.uniform("tokens", 0, total), masked, self.levels)
        with torch.no_grad():
            known, z = self.split(self.quantize(latents).codes, counts)
        dropped = torch.where(noise.uniform("drop", 0) < class_dropout, self.classes, labels)
        bounds = self.head.bound(self(known, dropped), z)
        asked = counts > 0
        return (bounds * asked).sum() / asked.sum()

    def _guided(self, known: Tensor, labels: Tensor, settings: ResgenSettings, written: float) -> Mixture:
        if settings.cfg_scale == 1.0:
            out: Mixture = self(known, labels)
            return out
        both = self(known.repeat(2, 1, 1), torch.cat([labels, torch.full_like(labels, self.classes)]))
        scale = settings.guidance(written)
        logits, factors, shift = (
            torch.lerp(part.chunk(2)[1], part.chunk(2)[0], scale) for part in (both.logits, both.factors, both.shift)
        )
        return Mixture(logits, factors, shift, both.log_scale.chunk(2)[0])

    def _drawn(self, mixture: Mixture, settings: ResgenSettings, noise: Noise, step: int) -> tuple[Tensor, Tensor]:
        """Sums `(B, L, C)`, and how sure each is, `(B, L)`."""
        uniform = noise.uniform("components", step, *mixture.logits.shape[1:]).to(mixture.logits)
        top_p = settings.top_p if settings.top_p < 1.0 else 0.0  # which is all of them, without sorting
        allowed = likeliest(mixture.logits / settings.temperature, 0, top_p)
        components = drawn_by_race(allowed.softmax(-1), uniform)
        fresh = settings.noise_scale * noise.normal("sums", step, self.length, self.channels).to(mixture.shift)
        z = mixture.shift + mixture.log_scale.exp() * (self.head.mean_of(mixture, components) + fresh)
        chances = mixture.logits.log_softmax(-1).gather(-1, components.unsqueeze(-1)).squeeze(-1)
        confidence = chances - 0.5 * fresh.square().sum(-1)
        # What is the same everywhere, (2 pi)^(-C / 2), changes no order.
        return z, confidence - mixture.log_scale.sum(-1) if settings.confidence == "density" else confidence


def build(tokenizer: Tokenizer | None, **sizes: int | float) -> ResgenReading:
    """A generator that writes for `tokenizer`; `sizes` are the arguments of `ResgenReading`.

    Raises MethodError if the tokenizer does not read the latents that these sizes write, or if heads do not divide
    the width.
    """
    if sizes["width"] % sizes["heads"]:
        raise MethodError(f"width must be a multiple of heads, got {sizes['width']} and {sizes['heads']}")
    generator = ResgenReading(**sizes)  # type: ignore[arg-type]
    generator.attach_latents(tokenizer, generator.length, generator.channels)
    return generator


def _variant(levels: int) -> Variant:
    return Variant(
        config={
            "grid": 16,
            "channels": 16,
            "levels": levels,
            "codebook_size": 1024,
            "classes": 1000,
            "width": 1152,
            "depth": 24,
            "heads": 16,
            "components": 256,
            "rank": 64,
        },
        tokenizer="mar-vae/kl16",
        note="a reading of the paper, which has no release",
    )


NOT_ITS_NUMBER = "arXiv 2412.10208 prints a gFID of the authors' own network, which is no number of this reading"

METHOD = GeneratorMethod(
    id="resgen-reading",
    title="ResGen (a reading)",
    idea="Predict the sum of a position's masked residual codes at once, quantise it again, and unmask coarse to fine",
    paper=Paper(
        title="Efficient Generative Modeling with Residual Vector Quantization-Based Tokens",
        authors="Jaehyeon Kim, Taehong Moon, Keon Lee, Jaewoong Cho",
        year=2024,
        url="https://arxiv.org/abs/2412.10208",
    ),
    settings=ResgenSettings,
    build=build,
    variants={f"d{levels}": _variant(levels) for levels in (8, 16)},
    presets={
        "resgen-reading-d16-63": Preset(settings=ResgenSettings(steps=63), variants=("d16",), printed=NOT_ITS_NUMBER),
        "resgen-reading-d16-63-unguided": Preset(
            settings=ResgenSettings(steps=63, cfg_scale=1.0), variants=("d16",), printed=NOT_ITS_NUMBER
        ),
    },
)
