"""MaskGIT's VQGAN: a convolutional tokenizer without attention, and the pixel decoder of legacy TiTok."""

from collections.abc import Mapping, Sequence
from typing import Any

from reference_impls.layers.grid_vq import GridVQ
from reference_impls.layers.maskgit_conv import ConvDecoder, ConvEncoder
from reference_impls.layers.quantizers import VectorQuantizer
from tokenmark.contracts import Paper, Release, TokenizerMethod, Variant

__all__ = ["METHOD", "MaskGitVQ", "release_arguments"]


class MaskGitVQ(GridVQ):
    """MaskGIT's first stage (arXiv 2202.04200, section 3.1), with the release's keys.

    Args:
        image_size: Side of the images, in pixels; a multiple of 2 ** (levels - 1).
        hidden_channels: Width that `channel_mult` multiplies; a multiple of 32.
        channel_mult: One factor per level, finest first.
        num_res_blocks: Residual blocks per level.
        z_channels: Channels of the latents, and width of the codebook.
        codebook_size: Number of codes.
    """

    signed = False
    encoder: ConvEncoder
    decoder: ConvDecoder
    quantize: VectorQuantizer

    def __init__(
        self,
        *,
        image_size: int,
        hidden_channels: int,
        channel_mult: Sequence[int],
        num_res_blocks: int,
        z_channels: int,
        codebook_size: int,
    ) -> None:
        sizes = (hidden_channels, channel_mult, num_res_blocks, z_channels)
        super().__init__(
            image_size=image_size,
            factor=2 ** (len(channel_mult) - 1),
            encoder=ConvEncoder(*sizes),
            decoder=ConvDecoder(*sizes),
            quantize=VectorQuantizer(codebook_size, z_channels),
        )


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `MaskGitVQ` for a release's configuration."""
    names = ("hidden_channels", "channel_mult", "num_res_blocks", "z_channels", "codebook_size")
    return {"image_size": config["resolution"], **{name: config[name] for name in names}}


METHOD = TokenizerMethod(
    id="maskgit-vq",
    title="MaskGIT-VQGAN",
    idea="A convolutional VQGAN without attention: one code per cell of a regular grid",
    paper=Paper(
        title="MaskGIT: Masked Generative Image Transformer",
        authors="Huiwen Chang, Han Zhang, Lu Jiang, Ce Liu, William T. Freeman",
        year=2022,
        url="https://arxiv.org/abs/2202.04200",
    ),
    build=MaskGitVQ,
    from_release=release_arguments,
    variants={
        "imagenet-f16-256": Variant(
            config={
                "image_size": 256,
                "hidden_channels": 128,
                "channel_mult": [1, 1, 2, 2, 4],
                "num_res_blocks": 2,
                "z_channels": 256,
                "codebook_size": 1024,
            },
            release=Release("fun-research/TiTok", "maskgit-vqgan-imagenet-f16-256.bin", licence="Apache-2.0"),
        ),
        "mini": Variant(
            config={
                "image_size": 32,
                "hidden_channels": 32,
                "channel_mult": [1, 1, 1],
                "num_res_blocks": 1,
                "z_channels": 32,
                "codebook_size": 256,
            },
            weights="maskgit-vq-mini",
            note="8x8 grid of 32x32 images, trained in this repository",
        ),
    },
)
