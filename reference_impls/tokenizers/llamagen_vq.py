"""LlamaGen's tokenizer: VQGAN with a small codebook dimension, compared on the unit sphere."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from reference_impls.layers.grid_vq import GridVQ
from reference_impls.layers.ldm_conv import LLAMAGEN, LdmDecoder, LdmEncoder, LdmSize
from reference_impls.layers.quantizers import VectorQuantizer
from tokenmark.contracts import Layout, Paper, Release, TokenizerMethod, Variant

__all__ = ["METHOD", "LlamaGenVQ", "release_arguments"]

USED = 65536
"""Length of the training statistics that a checkpoint carries along."""


class LlamaGenVQ(GridVQ):
    """LlamaGen's image tokenizer (arXiv 2406.06525, section 2.1).

    Args:
        image_size: Side of the images, in pixels.
        ch: Width that `ch_mult` multiplies.
        ch_mult: One factor per level, finest first; attention is at the coarsest level.
        num_res_blocks: Residual blocks per level of the encoder.
        z_channels: Channels between the networks and the bottleneck.
        codebook_size: Number of codes.
        codebook_dim: Width of a code.
        decoder_ch_mult: The decoder's factors, where they are not the encoder's.
        l2_norm: Compare latents and codes on the unit sphere, as all releases do.
    """

    def __init__(
        self,
        *,
        image_size: int,
        ch: int = 128,
        ch_mult: Sequence[int],
        num_res_blocks: int = 2,
        z_channels: int = 256,
        codebook_size: int = 16384,
        codebook_dim: int = 8,
        decoder_ch_mult: Sequence[int] | None = None,
        l2_norm: bool = True,
    ) -> None:
        size = LdmSize(ch=ch, ch_mult=ch_mult, num_res_blocks=num_res_blocks, z_channels=z_channels)
        back = replace(size, ch_mult=decoder_ch_mult or ch_mult)
        quantize = VectorQuantizer(codebook_size, codebook_dim, l2_norm=l2_norm)
        quantize.register_buffer("codebook_used", torch.zeros(USED))
        super().__init__(
            image_size=image_size,
            factor=size.factor,
            encoder=LdmEncoder(size, (size.levels - 1,)),
            decoder=LdmDecoder(back, (back.levels - 1,), running_order=True),
            quantize=quantize,
            quant_conv=nn.Conv2d(z_channels, codebook_dim, 1),
            post_quant_conv=nn.Conv2d(codebook_dim, z_channels, 1),
        )


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `LlamaGenVQ` for the release's `ModelArgs`, at 256 pixels."""
    return {
        "image_size": 256,
        "ch": config.get("ch", 128),
        "ch_mult": config["encoder_ch_mult"],
        "num_res_blocks": config.get("num_res_blocks", 2),
        "z_channels": config["z_channels"],
        "codebook_size": config["codebook_size"],
        "codebook_dim": config["codebook_embed_dim"],
        "decoder_ch_mult": config["decoder_ch_mult"],
        "l2_norm": config.get("codebook_l2_norm", True),
    }


def _variant(file: str, ch_mult: Sequence[int], image_size: int, repo: str = "FoundationVision/LlamaGen") -> Variant:
    return Variant(config={"image_size": image_size, "ch_mult": ch_mult}, release=Release(repo, file, licence="MIT"))


VQ8, VQ16 = (1, 2, 2, 4), (1, 1, 2, 2, 4)

METHOD = TokenizerMethod(
    id="llamagen-vq",
    title="LlamaGen VQ",
    idea="VQGAN with 16,384 codes of only 8 dimensions, compared by cosine, so that all of them come into use",
    paper=Paper(
        title="Autoregressive Model Beats Diffusion: Llama for Scalable Image Generation",
        authors="Peize Sun, Yi Jiang, Shoufa Chen, Shilong Zhang, Bingyue Peng, Ping Luo, Zehuan Yuan",
        year=2024,
        url="https://arxiv.org/abs/2406.06525",
    ),
    build=LlamaGenVQ,
    from_release=release_arguments,
    layout=Layout(wrappers=("ema", "model", "state_dict"), renames=LLAMAGEN),
    variants={
        "vq-16": _variant("vq_ds16_c2i.pt", VQ16, 256),
        "vq-16-384": _variant("vq_ds16_c2i.pt", VQ16, 384),
        "vq-16-512": _variant("vq_ds16_c2i.pt", VQ16, 512),
        "vq-8": _variant("vq_ds8_c2i.pt", VQ8, 256),
        "vq-16-t2i": _variant("vq_ds16_t2i.pt", VQ16, 256, "peizesun/llamagen_t2i"),
    },
)
