"""VAR's tokenizer: the same image on ever finer grids of codes, each of which codes what is left over."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from reference_impls.layers.grid_vq import GridVQ
from reference_impls.layers.ldm_conv import LdmDecoder, LdmEncoder, LdmSize
from reference_impls.layers.multiscale import MultiScaleVQ, SharedPhis
from tokenmark.contracts import Layout, MethodError, Paper, Release, TokenizerMethod, Variant

__all__ = ["METHOD", "VarVQ", "release_arguments"]


class VarVQ(GridVQ):
    """VAR's multi-scale VQ autoencoder (arXiv 2404.02905, section 3.2, algorithms 1 and 2), with the release's keys.

    Args:
        image_size: Side of the images, in pixels.
        scales: Sides of the grids of codes, coarse to fine; the last is the side of the latents' grid.
        ch: Width that `ch_mult` multiplies.
        ch_mult: One factor per level, finest first; attention is at the coarsest level.
        num_res_blocks: Residual blocks per level of the encoder.
        z_channels: Channels of latents and codes.
        codebook_size: Number of codes, the same ones for all scales.
        phis: How many convolutions the scales share; one for each scale if None.
        phi_ratio: Share of the convolution in what a scale adds; without convolutions at 0.
        kernel_size: Of the convolutions before and after the bottleneck.
        cosine: Choose codes by the angle and not by the distance.
    """

    quantize: MultiScaleVQ

    def __init__(
        self,
        *,
        image_size: int,
        scales: Sequence[int],
        ch: int = 160,
        ch_mult: Sequence[int] = (1, 1, 2, 2, 4),
        num_res_blocks: int = 2,
        z_channels: int = 32,
        codebook_size: int = 4096,
        phis: int | None = 4,
        phi_ratio: float = 0.5,
        kernel_size: int = 3,
        cosine: bool = False,
    ) -> None:
        size = LdmSize(ch=ch, ch_mult=ch_mult, num_res_blocks=num_res_blocks, z_channels=z_channels, attention="fused")
        coarsest = (size.levels - 1,)
        shared = SharedPhis(z_channels, len(scales), phis or len(scales), phi_ratio) if phi_ratio else None
        super().__init__(
            image_size=image_size,
            factor=size.factor,
            encoder=LdmEncoder(size, coarsest),
            decoder=LdmDecoder(size, coarsest),
            quantize=MultiScaleVQ(scales, codebook_size, z_channels, phis=shared, cosine=cosine),
            quant_conv=nn.Conv2d(z_channels, z_channels, kernel_size, padding=kernel_size // 2),
            post_quant_conv=nn.Conv2d(z_channels, z_channels, kernel_size, padding=kernel_size // 2),
        )
        if scales[-1] != self.grid:
            raise MethodError(f"the last scale must be the side of the grid, {self.grid}, got {scales[-1]}")
        self.max_tokens = self.quantize.length


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `VarVQ` for those of the release's `VQVAE`; the finest scale gives the size of the images."""
    ch_mult, scales = config.get("ch_mult", (1, 1, 2, 2, 4)), config["v_patch_nums"]
    return {
        "image_size": scales[-1] * 2 ** (len(ch_mult) - 1),
        "scales": scales,
        "ch": config["ch"],
        "ch_mult": ch_mult,
        "num_res_blocks": config.get("num_res_blocks", 2),
        "z_channels": config["z_channels"],
        "codebook_size": config["vocab_size"],
        "phis": config["share_quant_resi"] or config.get("default_qresi_counts") or None,
        "phi_ratio": config["quant_resi"],
        "kernel_size": config["quant_conv_ks"],
        "cosine": config["using_znorm"],
    }


RELEASE = Release("FoundationVision/var", "vae_ch160v4096z32.pth", licence="MIT")

METHOD = TokenizerMethod(
    id="var-vq",
    title="VAR VQ",
    idea="Ten grids of codes, from 1x1 to 16x16, whose enlarged rows sum up to the latents",
    paper=Paper(
        title="Visual Autoregressive Modeling: Scalable Image Generation via Next-Scale Prediction",
        authors="Keyu Tian, Yi Jiang, Zehuan Yuan, Bingyue Peng, Liwei Wang",
        year=2024,
        url="https://arxiv.org/abs/2404.02905",
    ),
    build=VarVQ,
    from_release=release_arguments,
    # The release names its phis by how they are shared: several, one for all, or one for each scale.
    layout=Layout(
        renames=(
            (r"\.quant_resi\.qresi\.", ".quant_resi.qresi_ls.0."),
            (r"\.quant_resi\.(\d+)\.", r".quant_resi.qresi_ls.\1."),
        )
    ),
    variants={
        "ch160v4096z32": Variant(
            config={"image_size": 256, "scales": (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)}, release=RELEASE
        ),
        "ch160v4096z32-512": Variant(
            config={"image_size": 512, "scales": (1, 2, 3, 4, 6, 9, 13, 18, 24, 32)},
            release=RELEASE,
            note="the same weights on 512x512 images",
        ),
    },
)
