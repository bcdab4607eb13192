"""TiTok: an image as a short one-dimensional sequence of latent tokens."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.layers.gaussian import DiagonalGaussian, draw_noise
from reference_impls.layers.maskgit_conv import ConvDecoder
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.quantizers import Quantized, TrainOutput, VectorQuantizer
from reference_impls.layers.titok_vit import SIZES, TiTokDecoder, TiTokEncoder, VitSize
from reference_impls.layers.token_checks import (
    LATENT_BITS,
    bits_of,
    check_codes,
    check_latents,
    check_length,
    need_noise,
    pack_codes,
    pack_latents,
)
from reference_impls.layers.tokenizer import ImageTokenizer, codes_of, latents_of
from reference_impls.tokenizers.maskgit_vq import MaskGitVQ
from tokenmark.contracts import MethodError, Paper, Release, TokenizerMethod, Tokens, Variant

__all__ = ["METHOD", "TiTok", "later_config", "legacy_config", "release_arguments"]


class TiTok(ImageTokenizer):
    """TiTok (arXiv 2406.07550) in its three released forms, with the release's keys.

    Legacy with `pixel` given: the decoder gives logits over MaskGIT-VQ's codebook; a softmax of them mixes that
    codebook's rows, which MaskGIT-VQ's decoder turns to pixels (finetuned, section 3.3). Without
    `finetune_decoder` the model ends at the logits (stage 1). With `pixel` None the decoder gives pixels itself,
    and the bottleneck is a codebook, or a Gaussian if `codebook_size` is None.

    Args:
        image_size: Side of the images, in pixels.
        encoder: Fields of `VitSize`.
        decoder: Fields of `VitSize`.
        num_latent_tokens: Number of latent tokens, N.
        token_size: Channels of each latent.
        codebook_size: Number of codes; None for a Gaussian bottleneck.
        use_l2_norm: Compare latents and codes on the unit sphere.
        pixel: For legacy models, the arguments of the `MaskGitVQ` whose codebook the decoder predicts, without
            `image_size`; None for the later ones.
        finetune_decoder: For legacy models, hold the pixel codebook and decoder.
        text: Tokens and channels of text features that the decoder takes too; None for none.
        commitment_cost: Weight of the quantizer's commitment term.
    """

    def __init__(
        self,
        *,
        image_size: int,
        encoder: Mapping[str, Any],
        decoder: Mapping[str, Any],
        num_latent_tokens: int,
        token_size: int,
        codebook_size: int | None,
        use_l2_norm: bool = False,
        pixel: Mapping[str, Any] | None = None,
        finetune_decoder: bool = True,
        text: tuple[int, int] | None = None,
        commitment_cost: float = 0.25,
    ) -> None:
        super().__init__()
        encoder_size, decoder_size = VitSize(**encoder), VitSize(**decoder)
        for size in (encoder_size, decoder_size):
            if image_size % size.patch_size:
                raise MethodError(f"image_size {image_size} is not a multiple of the patch size {size.patch_size}")
        self.image_size, self.token_size, self.max_tokens = image_size, token_size, num_latent_tokens
        self.text = text
        self.stochastic = codebook_size is None  # the release samples in evaluation too (quantizer.py:156)
        tokens = torch.empty(num_latent_tokens, encoder_size.width)
        self.latent_tokens = nn.Parameter(nn.init.trunc_normal_(tokens, std=encoder_size.width**-0.5))
        sizes: dict[str, int] = {"image_size": image_size, "num_latent_tokens": num_latent_tokens}
        channels = token_size if codebook_size is not None else 2 * token_size
        self.encoder = TiTokEncoder(encoder_size, **sizes, out_channels=channels, legacy=pixel is not None)
        codes = None if pixel is None else int(pixel["codebook_size"])
        self.decoder = TiTokDecoder(decoder_size, **sizes, token_size=token_size, pixel_codes=codes, text=text)
        self.quantize: VectorQuantizer | None = None
        if codebook_size is not None:
            self.quantize = VectorQuantizer(
                codebook_size, token_size, l2_norm=use_l2_norm, commitment_cost=commitment_cost
            )
        self.pixel_quantize: VectorQuantizer | None = None
        self.pixel_decoder: ConvDecoder | None = None
        if pixel is not None and finetune_decoder:
            self.pixel_quantize = VectorQuantizer(pixel["codebook_size"], pixel["z_channels"])
            names = ("hidden_channels", "channel_mult", "num_res_blocks", "z_channels")
            self.pixel_decoder = ConvDecoder(**{name: pixel[name] for name in names})

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """One, or none for a Gaussian bottleneck."""
        return () if self.quantize is None else (self.quantize.codebook_size,)

    @property
    def bits_per_token(self) -> float:
        """Bits of a code, or of the float32 channels of a latent."""
        return float(LATENT_BITS * self.token_size) if self.quantize is None else bits_of(self.codebook_sizes)

    def _check_tokens(self, tokens: Tokens) -> None:
        if self.quantize is None:
            check_latents(tokens, self.max_tokens, self.token_size)
        else:
            check_codes(tokens, self.codebook_sizes, self.max_tokens, variable=self.variable_length)

    def _encode(self, images: Tensor, tokens: int | None, generator: torch.Generator | None) -> Tokens:
        if self.quantize is None:
            return pack_latents(self._sampled(self.posterior(images), need_noise(generator, "encode")))
        return pack_codes(self.quantize_images(images).codes[:, :tokens], self.codebook_sizes)

    def _decode(self, tokens: Tokens, generator: torch.Generator | None, text: Tensor | None) -> Tensor:  # noqa: ARG002
        return self.decode_latents(self._rows(tokens), text)

    def _rows(self, tokens: Tokens) -> Tensor:
        """What the decoder takes for tokens: codebook rows, or the latents themselves, `(B, n, C)`."""
        return latents_of(tokens) if self.quantize is None else self.quantize.lookup(codes_of(tokens))

    def encode_latents(self, images: Tensor) -> Tensor:
        """Differentiable: what the encoder gives before its bottleneck, `(B, C, 1, N)`; a Gaussian has 2C."""
        latents: Tensor = self.encoder(images.to(self.latent_tokens.dtype), self.latent_tokens)
        return latents

    def quantize_images(self, images: Tensor) -> Quantized:
        """Differentiable: latents `(B, N, C)` of images, quantised; MethodError for a Gaussian bottleneck."""
        if self.quantize is None:
            raise MethodError("this variant has a Gaussian bottleneck and no codes")
        quantized: Quantized = self.quantize(self.encode_latents(images).squeeze(2).transpose(1, 2))
        return quantized

    def posterior(self, images: Tensor) -> DiagonalGaussian:
        """Differentiable: the Gaussian `(B, C, 1, N)` of a variant without a codebook."""
        return DiagonalGaussian(self.encode_latents(images))

    def decode_logits(self, latents: Tensor) -> Tensor:
        """Differentiable: logits `(B, K, g, g)` over the pixel codebook, of latents `(B, n, C)` (legacy only).

        Stage 1 trains them with cross-entropy against MaskGIT-VQ's codes of the image (section 3.3).
        """
        if not self.decoder.gives_logits:
            raise MethodError("this variant decodes to pixels: it has no logits over a pixel codebook")
        return at_least_float32(self.decoder(latents.to(self.latent_tokens.dtype)))

    def decode_pixels(self, logits: Tensor) -> Tensor:
        """Differentiable: images, not clamped, of logits over the pixel codebook (finetuned legacy only)."""
        rows = self.pixel_rows(logits)
        assert self.pixel_decoder is not None  # noqa: S101  where there are rows, there is their decoder
        return at_least_float32(self.pixel_decoder(rows.to(self.latent_tokens.dtype)))

    def pixel_rows(self, logits: Tensor) -> Tensor:
        """Differentiable: the pixel codebook's rows mixed by softmaxed logits, `(B, z, g, g)` (titok.py:183-190)."""
        if self.pixel_quantize is None:
            raise MethodError("stage-1 weights end at logits over pixel codes: decode their argmax with MaskGIT-VQ")
        weights = logits.softmax(1).movedim(1, -1)
        return (weights @ self.pixel_quantize.embedding.weight.to(weights.dtype)).movedim(-1, 1)

    def decode_latents(self, latents: Tensor, text: Tensor | None = None) -> Tensor:
        """Differentiable: images `(B, 3, S, S)`, not clamped, of quantised or sampled latents `(B, n, C)`.

        `text` features `(B, tokens, channels)` are for a decoder that takes such.
        """
        if self.decoder.gives_logits:
            return self.decode_pixels(self.decode_logits(latents))
        text = None if text is None else text.to(self.latent_tokens.dtype)
        return at_least_float32(self.decoder(latents.to(self.latent_tokens.dtype), text))

    def forward_train(
        self,
        images: Tensor,
        tokens: int | None = None,
        generator: torch.Generator | None = None,
        text: Tensor | None = None,
    ) -> TrainOutput:
        """One differentiable pass over images `(B, 3, S, S)`; only the first `tokens` latents reach the decoder."""
        check_length(tokens, self.max_tokens, variable=self.variable_length)
        if self.quantize is None:
            posterior = self.posterior(images)
            sample = self._sampled(posterior, need_noise(generator, "forward_train"))
            return TrainOutput(self.decode_latents(sample, text), posterior.kl().mean(), None)
        quantized = self.quantize_images(images)
        latents = quantized.quantized[:, :tokens]
        if not self.decoder.gives_logits:
            return TrainOutput(self.decode_latents(latents, text), quantized.loss, quantized.codes)
        logits = self.decode_logits(latents)
        return TrainOutput(self.decode_pixels(logits), quantized.loss, quantized.codes, logits)

    def load_pixel_decoder(self, pixel: MaskGitVQ) -> None:
        """Start stage 2 from a MaskGIT-VQ: copy its codebook and decoder (section 3.3)."""
        if self.pixel_decoder is None or self.pixel_quantize is None:
            raise MethodError("this variant holds no pixel decoder")
        self.pixel_quantize.load_state_dict(pixel.quantize.state_dict())
        self.pixel_decoder.load_state_dict(pixel.decoder.state_dict())

    @staticmethod
    def _sampled(posterior: DiagonalGaussian, generator: torch.Generator) -> Tensor:
        """Latents `(B, N, C)` drawn from a posterior `(B, C, 1, N)`."""
        return posterior.sample(draw_noise(posterior.mean, generator)).squeeze(2).transpose(1, 2)


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `TiTok` for a release's configuration tree.

    Sizes come from `model.vq_model`'s names; groups `encoder`, `decoder`, `pixel_decoder` and `pixel_codebook`,
    which the release hard-codes, are taken where the tree spells them out.
    """
    model = config["model"]["vq_model"]
    legacy = model.get("is_legacy", True)
    sides = {}
    for side, short in (("encoder", "enc"), ("decoder", "dec")):
        size = {**SIZES[model[f"vit_{short}_model_size"]], **config.get(side, {})}
        fields = ("width", "layers", "heads", "mlp_ratio")
        sides[side] = {name: size[name] for name in fields if name in size}
        sides[side]["patch_size"] = model[f"vit_{short}_patch_size"]
    pixel = None
    if legacy:
        pixel = {**PIXEL_CONFIG, **config.get("pixel_decoder", {})}
        pixel = {name: pixel[name] for name in PIXEL_CONFIG}
        pixel["codebook_size"] = config.get("pixel_codebook", {}).get("size", PIXEL_CONFIG["codebook_size"])
    return {
        "image_size": config["dataset"]["preprocessing"]["crop_size"],
        **sides,
        "num_latent_tokens": model["num_latent_tokens"],
        "token_size": model["token_size"],
        "codebook_size": model["codebook_size"] if model.get("quantize_mode", "vq") == "vq" else None,
        "use_l2_norm": model.get("use_l2_norm", False),
        "pixel": pixel,
        "finetune_decoder": model.get("finetune_decoder", True),
    }


PIXEL_CONFIG: Mapping[str, Any] = {
    "hidden_channels": 128,
    "channel_mult": [1, 1, 2, 2, 4],
    "num_res_blocks": 2,
    "z_channels": 256,
    "codebook_size": 1024,
}
"""The MaskGIT-VQ that every released legacy variant decodes its pixels with."""


def legacy_config(size: str, tokens: int) -> dict[str, Any]:
    """Arguments of a released legacy variant of one of `SIZES`, with `tokens` latent tokens."""
    return {
        "image_size": 256,
        "encoder": {**SIZES[size], "patch_size": 16},
        "decoder": {**SIZES[size], "patch_size": 16},
        "num_latent_tokens": tokens,
        "token_size": 12,
        "codebook_size": 4096,
        "use_l2_norm": True,
        "pixel": PIXEL_CONFIG,
    }


def later_config(encoder: str, decoder: str, tokens: int, codebook: int | None, token_size: int) -> dict[str, Any]:
    """Arguments of a released variant that gives pixels itself; sides of `SIZES`, `codebook` None for a Gaussian."""
    return {
        "image_size": 256,
        "encoder": {**SIZES[encoder], "patch_size": 16},
        "decoder": {**SIZES[decoder], "patch_size": 16},
        "num_latent_tokens": tokens,
        "token_size": token_size,
        "codebook_size": codebook,
    }


def _release(name: str) -> Release:
    return Release(f"yucornetto/tokenizer_titok_{name}_imagenet", licence="Apache-2.0")


MINI_CONFIG: Mapping[str, Any] = {
    "image_size": 32,
    "encoder": {"width": 48, "layers": 4, "heads": 4, "patch_size": 4},
    "decoder": {"width": 48, "layers": 4, "heads": 4, "patch_size": 4},
    "num_latent_tokens": 16,
    "token_size": 12,
    "codebook_size": 256,
    "use_l2_norm": True,
    "pixel": {
        "hidden_channels": 32,
        "channel_mult": [1, 1, 1],
        "num_res_blocks": 1,
        "z_channels": 32,
        "codebook_size": 256,
    },
}
"""The size that this repository trains; its pixel decoder is that of maskgit-vq/mini."""

METHOD = TokenizerMethod(
    id="titok",
    title="TiTok",
    idea="An image is N latent tokens that a transformer reads from its patches, and not a grid",
    paper=Paper(
        title="An Image is Worth 32 Tokens for Reconstruction and Generation",
        authors="Qihang Yu, Mark Weber, Xueqing Deng, Xiaohui Shen, Daniel Cremers, Liang-Chieh Chen",
        year=2024,
        url="https://arxiv.org/abs/2406.07550",
    ),
    build=TiTok,
    from_release=release_arguments,
    variants={
        "l32": Variant(config=legacy_config("large", 32), release=_release("l32")),
        "b64": Variant(config=legacy_config("base", 64), release=_release("b64")),
        "s128": Variant(config=legacy_config("small", 128), release=_release("s128")),
        "bl64-vq8k": Variant(config=later_config("base", "large", 64, 8192, 64), release=_release("bl64_vq8k")),
        "bl128-vq8k": Variant(config=later_config("base", "large", 128, 8192, 64), release=_release("bl128_vq8k")),
        "sl256-vq8k": Variant(config=later_config("small", "large", 256, 8192, 64), release=_release("sl256_vq8k")),
        "ll32-vae": Variant(
            config=later_config("large", "large", 32, None, 16),
            release=_release("ll32_vae_c16"),
        ),
        "bl64-vae": Variant(config=later_config("base", "large", 64, None, 16), release=_release("bl64_vae_c16")),
        "bl128-vae": Variant(
            config=later_config("base", "large", 128, None, 16),
            release=_release("bl128_vae_c16"),
        ),
        "mini-16": Variant(
            config=MINI_CONFIG, weights="titok-mini-16", note="16 tokens of 32x32 images, trained in this repository"
        ),
    },
)
