"""KL-16, the autoencoder with continuous latents that MAR writes for, and many after it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from reference_impls.layers.kl_autoencoder import KlAutoencoder
from reference_impls.layers.kl_tokenizer import KEYS, KlTokenizer
from reference_impls.layers.ldm_conv import attention_levels
from tokenmark.contracts import Layout, Paper, TokenizerMethod, Variant

__all__ = ["KL16", "LATENT_SCALE", "METHOD", "MINI_CONFIG", "RENAMES", "MarVAE", "release_arguments"]

LATENT_SCALE = 0.2325
"""What MAR multiplies KL-16's latents with, so that their standard deviation is about 1."""

RENAMES = KEYS
"""The release's key to that of a module which holds the autoencoder as `vae`."""


class MarVAE(KlTokenizer):
    """An autoencoder with a Gaussian per cell of a grid (arXiv 2112.10752, section 3.1), in MAR's release.

    Its latents are the posterior's own. Generators see them times `latent_scale`, and divide before decoding.

    Args:
        image_size: Side of the images, in pixels.
        ch: Width that `ch_mult` multiplies.
        ch_mult: One factor per level, finest first.
        num_res_blocks: Residual blocks per level of the encoder.
        z_channels: Channels of a latent.
        encoder_attention: Levels, 0 the finest, with attention behind every residual block of the encoder.
        decoder_attention: The same for the decoder. The release has none, besides the one in the middle.
        latent_scale: What generators multiply latents with.
    """

    def __init__(
        self,
        *,
        image_size: int,
        ch: int = 128,
        ch_mult: Sequence[int] = (1, 1, 2, 2, 4),
        num_res_blocks: int = 2,
        z_channels: int = 16,
        encoder_attention: Collection[int] = (4,),
        decoder_attention: Collection[int] = (),
        latent_scale: float = LATENT_SCALE,
    ) -> None:
        vae = KlAutoencoder(
            ch=ch,
            ch_mult=ch_mult,
            num_res_blocks=num_res_blocks,
            z_channels=z_channels,
            encoder_attention=encoder_attention,
            decoder_attention=decoder_attention,
        )
        super().__init__(vae, image_size=image_size, latent_scale=latent_scale)


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `MarVAE` for what the release hard-codes; attention goes by nominal resolutions."""
    levels, resolution = len(config["ch_mult"]), config["resolution"]
    return {
        "image_size": resolution,
        "ch": config["ch"],
        "ch_mult": config["ch_mult"],
        "num_res_blocks": config["num_res_blocks"],
        "z_channels": config["embed_dim"],
        "encoder_attention": attention_levels(levels, resolution, config["encoder_attn_resolutions"]),
        "decoder_attention": attention_levels(levels, resolution, config["decoder_attn_resolutions"]),
        "latent_scale": config.get("latent_scale", LATENT_SCALE),
    }


KL16: Mapping[str, Any] = {"image_size": 256}
"""The released size: 256 latents of 16 channels."""

MINI_CONFIG: Mapping[str, Any] = {
    "image_size": 32,
    "ch": 32,
    "ch_mult": (1, 1, 1),
    "num_res_blocks": 1,
    "z_channels": 4,
    "encoder_attention": (2,),
}
"""A size that trains on a processor: 64 latents of 4 channels for 32x32 images."""

METHOD = TokenizerMethod(
    id="mar-vae",
    title="MAR KL-16",
    idea="A convolutional autoencoder with 16 continuous channels per cell, so that generators need no codebook",
    paper=Paper(
        title="Autoregressive Image Generation without Vector Quantization",
        authors="Tianhong Li, Yonglong Tian, He Li, Mingyang Deng, Kaiming He",
        year=2024,
        url="https://arxiv.org/abs/2406.11838",
    ),
    build=MarVAE,
    from_release=release_arguments,
    layout=Layout(wrappers=("model",), renames=RENAMES),
    variants={
        "kl16": Variant(config=KL16, note="weights: kl16.ckpt, see LTH14/mar"),
        "mini": Variant(
            config=MINI_CONFIG,
            weights="mar-vae-mini",
            note="4 channels per cell of an 8x8 grid of 32x32 images, trained in this repository",
        ),
    },
)
