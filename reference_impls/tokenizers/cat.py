"""CAT: an image gets as many latents as its caption is complex.

No release: built from the paper. A caption's complexity, 1 to 9, reaches the encoder as the argument `complexity`.
In the paper a large language model (Llama 3) gives it from a caption and answers about the image; here nothing does:
scores come from outside, or from `layers.caption_complexity`, whose rules by words or by pixels stand in for the model
and are not CAT's. What the paper leaves open, and what was taken:

- thresholds: scores below 4 take 32x, below 7 take 16x, others 8x;
- nesting: the levels of one encoder up to the ratio's, then a 1x1 convolution to match channels, then a middle and a
  last convolution that all ratios share; the decoder mirrors it. A coarser code passes through all levels of a finer;
- channels: 16 at every ratio, so that the ratios can share; base width 128, multipliers 1, 2, 4, 4, 4, 4 (the latent
  diffusion VAE's, extended);
- the posterior is sampled; noise is drawn for the longest code, so that one image's complexity leaves the others alone;
- which ratio an image has is told by its length, and not counted in bits, as for every method here.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from reference_impls.layers.caption_complexity import check_scores, pixel_scores
from reference_impls.layers.gaussian import DiagonalGaussian, draw_noise
from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.layers.ldm_conv import LdmSize
from reference_impls.layers.nested_conv import NestedDecoder, NestedEncoder
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.token_checks import LATENT_BITS, check_images, check_latents, need_noise, pack_latents
from reference_impls.layers.tokenizer import ImageTokenizer, from_signed, latents_of, to_signed
from tokenmark.contracts import MethodError, Paper, TokenizerMethod, Tokens, Variant

__all__ = ["CAT", "METHOD"]


class CAT(ImageTokenizer):
    """CAT (arXiv 2501.03120): a nested VAE whose ratio is chosen per image.

    Args:
        image_size: Side of the images, in pixels; a multiple of the coarsest ratio.
        ratios: Pixels of a side that become one latent, powers of two, rising; one alone gives a fixed-ratio baseline.
        thresholds: Scores from which on the next finer ratio is taken, rising, one fewer than the ratios.
        rule: What gives scores where `encode` is told none: nothing ("scores"), or the pixels ("pixels").
        channels: Channels of a latent.
        ch: Width that `ch_mult` multiplies; a multiple of 32.
        ch_mult: One factor per level, finest first; those beyond the coarsest ratio are left off.
        num_res_blocks: Residual blocks per level of the encoder.
    """

    stochastic = True

    def __init__(
        self,
        *,
        image_size: int,
        ratios: Sequence[int] = (8, 16, 32),
        thresholds: Sequence[float] = (4.0, 7.0),
        rule: Literal["scores", "pixels"] = "scores",
        channels: int = 16,
        ch: int = 128,
        ch_mult: Sequence[int] = (1, 2, 4, 4, 4, 4),
        num_res_blocks: int = 2,
    ) -> None:
        super().__init__()
        levels = [ratio.bit_length() - 1 for ratio in ratios]
        if not ratios or list(ratios) != sorted({2**level for level in levels}):
            raise MethodError(f"ratios must be powers of two that rise, got {list(ratios)}")
        if image_size % ratios[-1] or levels[-1] >= len(ch_mult):
            raise MethodError(f"a ratio of {ratios[-1]} needs a multiple of it as image_size, and a factor per level")
        if len(thresholds) != len(ratios) - 1 or list(thresholds) != sorted(thresholds):
            raise MethodError(f"{len(ratios)} ratios need {len(ratios) - 1} rising thresholds, got {list(thresholds)}")
        if rule not in {"scores", "pixels"}:
            raise MethodError(f"rule must be 'scores' or 'pixels', got '{rule}'")
        self.image_size, self.channels, self.rule = image_size, channels, rule
        self.levels, self.thresholds = levels, [float(threshold) for threshold in thresholds]
        self.counts = [(image_size // ratio) ** 2 for ratio in ratios]
        self.max_tokens = self.counts[0]
        self.variable_length = len(ratios) > 1
        factors = ch_mult[: levels[-1] + 1]
        size = LdmSize(ch=ch, ch_mult=factors, num_res_blocks=num_res_blocks, z_channels=channels)
        self.encoder = NestedEncoder(size, levels, 2 * channels)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, channels, 1)
        self.decoder = NestedDecoder(size, levels)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """There are none."""
        return ()

    @property
    def bits_per_token(self) -> float:
        """The channels as float32."""
        return float(LATENT_BITS * self.channels)

    @torch.no_grad()
    def encode(
        self,
        images: Tensor,
        tokens: int | None = None,
        generator: torch.Generator | None = None,
        complexity: Tensor | None = None,
    ) -> Tokens:
        """Latents of images `(B, 3, S, S)` in [0, 1], as many for each as its `complexity`, `(B,)` of 1 to 9, asks for.

        `tokens` gives all images the ratio with so many latents instead. Shorter codes are padded with 0 behind.

        Raises MethodError for other images or scores, for a length that no ratio has, and where there are no scores
        and no rule that would give them.
        """
        check_images(images, self.image_size)
        need = need_noise(generator, "encode")
        chosen = self.choice(images, tokens, complexity)
        counts = torch.tensor(self.counts, device=images.device)
        lengths = counts[chosen]
        longest = max(lengths.tolist(), default=self.counts[-1])
        exact = torch.promote_types(self.number_type, torch.float32)
        noise = draw_noise(images.new_empty(len(images), self.max_tokens, self.channels, dtype=exact), need)
        latents = noise.new_zeros(len(images), longest, self.channels)
        for index, count in enumerate(self.counts):
            rows = (chosen == index).nonzero().squeeze(1)
            if len(rows):
                posterior = self.posterior(images[rows], index)
                drawn = posterior.sample(as_grid(noise[rows, :count], self.image_size // 2 ** self.levels[index]))
                latents[rows, :count] = as_rows(drawn)
        return pack_latents(latents, lengths)

    def choice(self, images: Tensor, tokens: int | None, complexity: Tensor | None) -> Tensor:
        """Which of the ratios, 0 the finest, each image is to have: int64 `(B,)`; `encode` says what cannot be."""
        if tokens is not None:
            if tokens not in self.counts:
                lengths = ", ".join(map(str, self.counts))
                raise MethodError(f"the ratios here give {lengths} tokens: tokens={tokens} cannot be asked of them")
            return torch.full((len(images),), self.counts.index(tokens), device=images.device)
        if complexity is None and self.variable_length and self.rule == "scores":
            raise MethodError(
                "this encoder is told how complex its images are: give encode() complexity (B,), 1 to 9, or tokens"
            )
        scores = pixel_scores(images) if complexity is None else check_scores(complexity, len(images))
        thresholds = torch.tensor(self.thresholds, dtype=torch.float64, device=images.device)
        passed = torch.bucketize(scores.to(thresholds), thresholds, right=True)
        return len(self.counts) - 1 - passed

    def posterior(self, images: Tensor, index: int) -> DiagonalGaussian:
        """Differentiable: the Gaussian `(B, C, h, w)` of images in [0, 1] at ratio number `index`, 0 the finest."""
        hidden = self.encoder(to_signed(images.to(self.number_type)), self.levels[index])
        return DiagonalGaussian(self.quant_conv(hidden))

    def decode_latents(self, latents: Tensor, index: int) -> Tensor:
        """Differentiable: images in [0, 1], not clamped, of latents `(B, N, C)` at ratio number `index`."""
        level = self.levels[index]
        grid = as_grid(latents.to(self.number_type), self.image_size // 2**level)
        return from_signed(at_least_float32(self.decoder(self.post_quant_conv(grid), level)))

    def _check_tokens(self, tokens: Tokens) -> None:
        latents = check_latents(tokens, self.max_tokens, self.channels, variable=True)
        lengths = tokens.lengths.tolist()
        if len(lengths) != len(latents) or any(n not in self.counts or n > latents.shape[1] for n in lengths):
            counts = ", ".join(map(str, self.counts))
            raise MethodError(f"lengths must be {counts}, one per image, and no more tokens than there are: {lengths}")

    def _decode(self, tokens: Tokens, generator: torch.Generator | None, text: Tensor | None) -> Tensor:  # noqa: ARG002
        latents = latents_of(tokens)
        exact = torch.promote_types(self.number_type, torch.float32)
        images = latents.new_zeros(len(latents), 3, self.image_size, self.image_size, dtype=exact)
        for index, count in enumerate(self.counts):
            rows = (tokens.lengths == count).nonzero().squeeze(1)
            if len(rows):
                images[rows] = self.decode_latents(latents[rows, :count], index)
        return images


NO_RELEASE = "no release: built from the paper; the module's docstring says what it leaves open"

METHOD = TokenizerMethod(
    id="cat",
    title="CAT",
    idea="A caption's complexity chooses how far an image is compressed, in one nested VAE for all ratios",
    paper=Paper(
        title="CAT: Content-Adaptive Image Tokenization",
        authors=(
            "Junhong Shen, Kushal Tirumala, Michihiro Yasunaga, Ishan Misra, Luke Zettlemoyer, Lili Yu, Chunting Zhou"
        ),
        year=2025,
        url="https://arxiv.org/abs/2501.03120",
    ),
    build=CAT,
    variants={
        "adaptive": Variant(config={"image_size": 256}, note=f"{NO_RELEASE}; needs scores of captions"),
        "adaptive-pixels": Variant(
            config={"image_size": 256, "rule": "pixels"}, note=f"{NO_RELEASE}; not CAT: pixels in place of captions"
        ),
        **{
            f"fixed-{ratio}": Variant(
                config={"image_size": 256, "ratios": (ratio,), "thresholds": ()},
                note=f"{NO_RELEASE}; the baseline with one ratio",
            )
            for ratio in (8, 16, 32)
        },
    },
)
