"""TCTS and FAS as read from their paper: which tokens of a frozen masked generator are drawn again.

Built from the paper, and named a reading because the paper's text leaves much open; there are no weights. What was
taken:

- the frozen generator: MaskGen-VQ, which draws its tokens with its own temperatures and guidance;
- the critic (inferred): Token-Critic with attention to the text, `selector_depth` blocks of `selector_width`, trained
  to tell an image's own tokens from those that the generator draws at random mask ratios;
- how many tokens are masked behind a step: MaskGen's arccos schedule, for all rules;
- FAS: the `fas_share` of positions with the widest self-attention is the smooth group; it may be revised at every
  step, and what was kept elsewhere only at every `fas_interval`-th. Attention is that of one block, the middle one.

`rule` "random" keeps tokens by lot and "purity" the surest, and neither takes back what it kept: the paper's baselines.
"random-revocable" draws lots for all tokens anew. "tcts" keeps what the critic says, and may take back any.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from reference_impls.generators import maskgen
from reference_impls.generators.maskgen import MaskGenCodes, texts_of
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.maskgen import Text, repeated_text
from reference_impls.layers.maskgen_sampling import VqSettings
from reference_impls.layers.noise import Noise, gumbel
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.text_generator import TextGenerator
from reference_impls.layers.token_checks import pack_codes
from reference_impls.layers.token_selection import (
    TokenSelector,
    image_attention,
    kept_places,
    masked_counts,
    purity,
    smooth_places,
)
from tokenmark.contracts import GeneratorMethod, MethodError, Paper, Preset, Prompts, Tokenizer, Variant

__all__ = ["METHOD", "Tcts", "TctsSettings", "build"]

Entering = Callable[[Tensor], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TctsSettings:
    """What a sampling run may choose."""

    rule: Literal["random", "random-revocable", "purity", "tcts"] = "tcts"
    """Which tokens are kept behind a step."""
    steps: int = 16
    """Passes of the masked generator."""
    temperature: float = 2.0
    """Scale of the Gumbel noise with which tokens are drawn at the start; it falls to 0 at the last step."""
    cfg_scale: float = 12.0
    """The generator's guidance, as in MaskGen."""
    cfg_schedule: Literal["cosine", "linear", "constant"] = "cosine"
    selection_temperature: float = 0.0
    """Scale of the Gumbel noise on what purity or the critic says, at the start; it falls to 0, too."""
    fas: bool = False
    """Whether the smooth group is revised more often than the rest, where the rule revises."""
    fas_share: float = 0.5
    """How much of an image is in the smooth group."""
    fas_interval: int = 2
    """Every how many steps the rest is revised."""
    aesthetic_score: float = 6.5
    """What images are told to be worth, as in MaskGen."""

    def __post_init__(self) -> None:
        self.of_codes()
        if self.rule not in ("random", "random-revocable", "purity", "tcts"):
            raise MethodError(f"rule must be random, random-revocable, purity or tcts, got '{self.rule}'")
        for name in ("selection_temperature", "aesthetic_score"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise MethodError(f"{name} must be a number from 0 on, got {getattr(self, name)}")
        if not 0.0 < self.fas_share <= 1.0:
            raise MethodError(f"fas_share must be above 0 and at most 1, got {self.fas_share}")
        if self.fas_interval < 1:
            raise MethodError(f"fas_interval must be at least 1, got {self.fas_interval}")
        if self.fas and not self.revocable:
            raise MethodError(f"fas says what is revised more often: {self.rule} revises nothing")

    @property
    def revocable(self) -> bool:
        """Whether what was kept may be masked again."""
        return self.rule in ("random-revocable", "tcts")

    def of_codes(self) -> VqSettings:
        """Those of the masked generator."""
        return VqSettings(
            steps=self.steps,
            temperature=self.temperature,
            cfg_scale=self.cfg_scale,
            cfg_schedule=self.cfg_schedule,
        )

    def spares(self, step: int) -> bool:
        """Whether what was kept outside of the smooth group stays at a step counted from 0."""
        return self.fas and step > 0 and (step + 1) % self.fas_interval != 0


class Tcts(TextGenerator):
    """A masked generator, which is not trained, and the critic of its tokens (arXiv 2304.01515).

    Args:
        generator: What predicts masked codes.
        selector: What says which of them stay.
    """

    def __init__(self, generator: MaskGenCodes, selector: TokenSelector) -> None:
        super().__init__()
        self.generator, self.selector, self.told = generator, selector, generator.told

    def steps(self, settings: TctsSettings) -> int:
        """Passes of the masked generator; the critic's, one fewer, are not counted."""
        return settings.steps

    def draw(self, prompts: Prompts, noise: Noise, settings: TctsSettings, watch: Watch) -> Tensor:
        """Images `(B, 3, S, S)` in [0, 1] from given noise."""
        text, empty = texts_of(prompts, settings.aesthetic_score, self.generator.pos_embed)
        codes = self.generate(text, empty, settings, noise, watch)
        return self.decoded(pack_codes(codes, self.generator.codebook_size), prompts.states)

    @torch.no_grad()
    def generate(
        self,
        text: Text,
        empty: Text,
        settings: TctsSettings,
        noise: Noise,
        watch: Watch,
        entering: Entering | None = None,
    ) -> Tensor:
        """Codes `(B, N)` for `text`, from given noise.

        Args:
            text: What `B` images are to show.
            empty: The empty text, of a batch of 1.
            settings: What the run chose.
            noise: Uniform "tokens" `(N, K)` of every step, and "keep" `(N,)` where what is kept is noisy.
            watch: Sees every step's logits.
            entering: Sees the codes that every step starts from.
        """
        network, sampler = self.generator, settings.of_codes()
        mask, length, count = network.codebook_size, network.length, len(text.states)
        read = network.read(repeated_text(text, empty))
        codes = torch.full((count, length), mask, device=text.states.device)
        for step, left in enumerate(masked_counts(length, settings.steps)):
            if entering is not None:
                entering(codes)
            ratio, attention = (step + 1) / settings.steps, _Attention(self, read[1][:count])
            looks = attention if left and settings.spares(step) else None
            told, untold = at_least_float32(network(codes.repeat(2, 1), read, looks)).chunk(2)
            logits = watch.see(told + sampler.weight(step) * (told - untold)) / (0.5 + 0.8 * (1.0 - ratio))
            uniform = noise.uniform("tokens", step, length, mask).to(logits)
            drawn = (logits + settings.temperature * (1.0 - ratio) * gumbel(uniform)).argmax(-1)
            masked = codes == mask
            predicted = torch.where(masked, drawn, codes)
            if not left:
                return predicted
            scores = self._scores(predicted, logits, text, settings, noise, step)
            if not settings.revocable:
                scores = scores.masked_fill(~masked, torch.inf)
            elif looks is not None:
                smooth = smooth_places(looks.seen, settings.fas_share)
                scores = scores.masked_fill(~masked & ~smooth, torch.inf)
            codes = predicted.masked_fill(~kept_places(scores, length - left), mask)
        return codes

    def _scores(
        self, predicted: Tensor, logits: Tensor, text: Text, settings: TctsSettings, noise: Noise, step: int
    ) -> Tensor:
        """How much each of `predicted` `(B, N)` is to be kept, `(B, N)`."""
        if settings.rule.startswith("random"):
            return noise.uniform("keep", step, predicted.shape[1])
        scores = purity(logits) if settings.rule == "purity" else self.selector(predicted, text.states)
        if settings.selection_temperature == 0.0:
            return scores
        temperature = settings.selection_temperature * (1.0 - (step + 1) / settings.steps)
        return scores + temperature * gumbel(noise.uniform("keep", step, predicted.shape[1]).to(scores))


class _Attention:
    """Sees what enters the middle block, and keeps where the images that are told their text look, `(B, N, N)`."""

    seen: Tensor

    def __init__(self, module: Tcts, condition: Tensor) -> None:
        self._block, self._condition = len(module.generator.blocks) // 2, condition
        self._module = module.generator.blocks[self._block]

    def __call__(self, index: int, x: Tensor, text: Tensor) -> None:
        count = len(self._condition)
        if index == self._block:
            self.seen = image_attention(self._module, x[:count], text[:count], self._condition)  # type: ignore[arg-type]


def build(
    tokenizer: Tokenizer | None,
    *,
    generator: Mapping[str, Any],
    selector_width: int = 768,
    selector_depth: int = 6,
    selector_heads: int = 12,
) -> Tcts:
    """A generator that writes for `tokenizer`; `generator` has the arguments of MaskGen's `build`, for codes.

    Raises MethodError if that gives latents, or if the tokenizer does not read the codes that it writes.
    """
    inner = maskgen.build(tokenizer, **generator)
    if not isinstance(inner, MaskGenCodes):
        raise MethodError("only codes are kept or masked again: generator must have a codebook_size")
    if selector_width % selector_heads:
        raise MethodError(f"selector_width must be a multiple of selector_heads, got {selector_width}")
    selector = TokenSelector(
        codebook_size=inner.codebook_size,
        length=inner.length,
        text_channels=inner.told[1],
        width=selector_width,
        depth=selector_depth,
        heads=selector_heads,
    )
    whole = Tcts(inner, selector)
    if tokenizer is not None:
        whole.bind(tokenizer)
    return whole


def _variant(name: str) -> Variant:
    size = maskgen.METHOD.variants[name]
    repo = size.release.repo if size.release else ""
    note = f"no release: a reading of the paper; its masked generator would be {repo}, its critic has no weights"
    return Variant(config={"generator": size.config}, tokenizer=size.tokenizer, note=note)


VARIANTS = {name: _variant(name) for name in ("vq-l", "vq-xl")}

METHOD = GeneratorMethod(
    id="tcts-reading",
    title="TCTS and FAS (reading)",
    idea="A critic that reads text and tokens says which are drawn again, those kept before among them",
    paper=Paper(
        title="Text-Conditioned Sampling Framework for Text-to-Image Generation with Masked Generative Models",
        authors="Jaewoong Lee, Sangwon Jang, Jaehyeong Jo, Jaehong Yoon, Yunji Kim, Jin-Hwa Kim, Jung-Woo Ha, "
        "Sung Ju Hwang",
        year=2023,
        url="https://arxiv.org/abs/2304.01515",
    ),
    settings=TctsSettings,
    build=build,
    text=maskgen.METHOD.text,
    variants=VARIANTS,
    presets={
        "tcts-reading": Preset(settings=TctsSettings(), variants=tuple(VARIANTS)),
        "tcts-reading-fas": Preset(settings=TctsSettings(fas=True), variants=tuple(VARIANTS)),
        "tcts-reading-purity": Preset(settings=TctsSettings(rule="purity"), variants=tuple(VARIANTS)),
        "tcts-reading-random": Preset(settings=TctsSettings(rule="random"), variants=tuple(VARIANTS)),
    },
)
