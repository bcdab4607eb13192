"""ENAT: masked prediction of image tokens in which visible tokens are encoded once, and apart from masked ones."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reference_impls.layers.class_generator import Watch
from reference_impls.layers.code_generator import CodeGenerator
from reference_impls.layers.enat_blocks import EnatNetwork, Stream
from reference_impls.layers.noise import Noise, drawn_by_race, gumbel
from reference_impls.layers.precision import at_least_float32
from tokenmark.contracts import GeneratorMethod, MethodError, Paper, Preset, Tokenizer, Variant

__all__ = ["METHOD", "Enat", "SamplerSettings", "build"]

LEAST_TEMPERATURE = 1e-3
"""Of the token draws at the last step, where it would be 0."""


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """What a sampling run may choose (arXiv 2411.06959; the names are the release's)."""

    steps: int = 8
    """Forward passes."""
    cfg_scale: float = 2.5
    """Guidance that the last step comes close to: it grows evenly from 0, and 0 is none."""
    mask_temp: float = 1.5
    """Scale of the noise on the confidence at the start; it falls to 0 at the last step."""
    samp_temp: float = 6.0
    """Temperature of the token draws at the start; it falls to almost 0 at the last step."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise MethodError(f"steps must be at least 1, got {self.steps}")
        for name in ("cfg_scale", "mask_temp", "samp_temp"):
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise MethodError(f"{name} must be 0 or greater, got {value}")

    def masked(self, tokens: int) -> list[int]:
        """How many of an image's tokens are masked when each step starts: the cosine schedule, one less at least."""
        counts = [tokens]
        for step in range(1, self.steps):
            share = math.floor(tokens * math.cos(0.5 * math.pi * step / self.steps))
            counts.append(max(1, min(counts[-1] - 1, share)))
        return counts


class Enat(EnatNetwork, CodeGenerator):
    """The network and its sampler; it is the network because the release stores its keys without a prefix."""

    def __init__(self, *, classes: int, **network: Any) -> None:
        super().__init__(classes=classes, **network)
        self.classes = classes

    @property
    def written(self) -> tuple[int, tuple[int, ...]]:
        """Tokens of an image, and their codes."""
        return self.positions, (self.codes,)

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

        Noise: uniform `tokens` `(B, L, K)` and `confidence` `(B, L)` of every step.
        """
        ids = torch.full((len(labels), self.positions), self.codes, device=labels.device)
        counts, stream = settings.masked(self.positions), None
        for step, masked in enumerate(counts):
            if entering is not None:
                entering(ids)
            left = 1.0 - (step + 1) / settings.steps
            scale = settings.cfg_scale * step / settings.steps
            stream = self._step(ids, labels, masked, stream, guided=scale > 0.0)
            places = stream.positions[: len(labels), stream.visible :]
            logits = self._guided(at_least_float32(self.logits(stream.features[:, stream.visible :])), scale)
            likely = watch.see(logits).log_softmax(-1)
            tempered = likely / max(settings.samp_temp * left, LEAST_TEMPERATURE)
            chances = noise.uniform("tokens", step, self.positions, self.codes).to(likely)
            chances = chances.gather(1, places[..., None].expand(-1, -1, self.codes))
            drawn = drawn_by_race(tempered.softmax(-1), chances)
            ids = ids.scatter(1, places, drawn)
            if step + 1 < settings.steps:
                spread = gumbel(noise.uniform("confidence", step, self.positions).to(likely)).gather(1, places)
                # How sure a token is does not depend on the temperature that it was drawn with.
                sure = likely.gather(-1, drawn[..., None]).squeeze(-1) + settings.mask_temp * left * spread
                again = places.gather(1, sure.argsort(dim=1, stable=True)[:, : counts[step + 1]])
                ids = ids.scatter(1, again, self.codes)
        return ids

    def _step(self, ids: Tensor, labels: Tensor, masked: int, previous: Stream | None, *, guided: bool) -> Stream:
        """Features of `ids` `(B, L)`, and with guidance of them without a class after that."""
        if guided:
            ids, labels = torch.cat([ids, ids]), torch.cat([labels, torch.full_like(labels, self.classes)])
        # The first step sees nothing, has no guidance, and leaves nothing to use again.
        return self.streamed(ids, labels, masked, previous if previous is not None and previous.visible else None)

    @staticmethod
    def _guided(logits: Tensor, scale: float) -> Tensor:
        if scale <= 0.0:
            return logits
        conditional, unconditional = logits.chunk(2)
        return conditional + scale * (conditional - unconditional)


def build(
    tokenizer: Tokenizer | None,
    *,
    input_size: int,
    hidden_size: int,
    num_heads: int,
    enc_dec: Sequence[int],
    codebook_size: int,
    num_classes: int,
    mlp_ratio: float = 4.0,
) -> Enat:
    """A generator that writes for `tokenizer`; sizes are named as in the release, `enc_dec` counts blocks.

    Raises MethodError if the tokenizer does not read the codes that these sizes write.
    """
    encoder_blocks, decoder_blocks = enc_dec
    generator = Enat(
        codes=codebook_size,
        positions=input_size**2,
        classes=num_classes,
        width=hidden_size,
        heads=num_heads,
        encoder_blocks=encoder_blocks,
        decoder_blocks=decoder_blocks,
        mlp_ratio=mlp_ratio,
    )
    generator.attach(tokenizer)
    return generator


LARGE: Mapping[str, Any] = {
    "hidden_size": 1024,
    "num_heads": 16,
    "enc_dec": (22, 2),
    "codebook_size": 1024,
    "num_classes": 1000,
}


def _row(variant: str, samples: str, batch_size: int, settings: SamplerSettings) -> Preset:
    """The release's command for a size."""
    return Preset(
        settings=settings,
        variants=(variant,),
        classes="sorted",
        seed="1234 + rank",
        batch_size=batch_size,
        printed=f"README.md of LeapLabTHU/ENAT: its command, of {samples} images",
    )


METHOD = GeneratorMethod(
    id="enat",
    title="ENAT",
    idea="Masked prediction in which visible tokens are encoded once, apart from the masked ones that look at them",
    paper=Paper(
        title="ENAT: Rethinking Spatial-temporal Interactions in Token-based Image Synthesis",
        authors="Zanlin Ni, Yulin Wang, Renping Zhou, Yizeng Han, Jiayi Guo, Zhiyuan Liu, Yuan Yao, Gao Huang",
        year=2024,
        url="https://arxiv.org/abs/2411.06959",
    ),
    settings=SamplerSettings,
    build=build,
    variants={
        "l-256": Variant(
            config={**LARGE, "input_size": 16},
            tokenizer="maskgit-vq/imagenet-f16-256",
            note="weights: nnet_ema.pth on Google Drive, see LeapLabTHU/ENAT",
        ),
        "l-512": Variant(
            config={**LARGE, "input_size": 32},
            note="weights: nnet_ema_512.pth on Google Drive, see LeapLabTHU/ENAT; no tokenizer of 512x512 images here",
        ),
    },
    presets={
        "enat-l-256-paper": _row(
            "l-256", "50,000", 125, SamplerSettings(steps=8, cfg_scale=2.5, mask_temp=1.5, samp_temp=6.0)
        ),
        "enat-l-512-paper": _row(
            "l-512", "5,000", 25, SamplerSettings(steps=8, cfg_scale=3.5, mask_temp=1.5, samp_temp=4.0)
        ),
    },
)
