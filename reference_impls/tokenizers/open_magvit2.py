"""Open-MAGVIT2: the open re-creation of MAGVIT-v2's image tokenizer."""

from collections.abc import Mapping, Sequence
from typing import Any

from reference_impls.layers.binary import BinaryQuantizer
from reference_impls.layers.grid_vq import GridVQ
from reference_impls.layers.magvit_conv import MagvitDecoder, MagvitEncoder, MagvitSize
from tokenmark.contracts import Layout, Paper, Release, TokenizerMethod, Variant

__all__ = ["METHOD", "OpenMagvit2", "release_arguments"]

GRID = 16
"""Tokens per side in every release."""


class OpenMagvit2(GridVQ):
    """Open-MAGVIT2's tokenizer (arXiv 2409.04410, section 3.1), with lookup-free quantization.

    Args:
        image_size: Side of the images, in pixels; a multiple of 2 ** (levels - 1).
        ch: Width that `ch_mult` multiplies; a multiple of 32.
        ch_mult: One factor per level, finest first.
        num_res_blocks: Residual blocks per level, and in the middle.
        bits: Channels of a latent, each of which becomes a bit.
    """

    def __init__(
        self, *, image_size: int, ch: int = 128, ch_mult: Sequence[int], num_res_blocks: int = 4, bits: int = 18
    ) -> None:
        size = MagvitSize(ch=ch, ch_mult=ch_mult, num_res_blocks=num_res_blocks, z_channels=bits)
        super().__init__(
            image_size=image_size,
            factor=size.factor,
            encoder=MagvitEncoder(size),
            decoder=MagvitDecoder(size),
            quantize=BinaryQuantizer(bits),
        )


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `OpenMagvit2` for the release's `ddconfig`.

    Its `resolution` is 128 for models of 256 pixels too: the image's size is that of 16 x 16 tokens.
    """
    network = config["ddconfig"]
    return {
        "image_size": GRID * 2 ** (len(network["ch_mult"]) - 1),
        **{name: network[name] for name in ("ch", "ch_mult", "num_res_blocks")},
        "bits": network["z_channels"],
    }


def _variant(repo: str, file: str, ch_mult: Sequence[int], bits: int = 18) -> Variant:
    return Variant(
        config={"image_size": GRID * 2 ** (len(ch_mult) - 1), "ch_mult": ch_mult, "bits": bits},
        release=Release(f"TencentARC/Open-MAGVIT2-Tokenizer-{repo}", file, licence="Apache-2.0"),
    )


F8, F16 = (1, 2, 2, 4), (1, 1, 2, 2, 4)

METHOD = TokenizerMethod(
    id="open-magvit2",
    title="Open-MAGVIT2",
    idea="18 signs are a token of 262,144 values without a codebook; the decoder's norms are driven by the latents",
    paper=Paper(
        title="Open-MAGVIT2: An Open-Source Project Toward Democratizing Auto-regressive Visual Generation",
        authors="Zhuoyan Luo, Fengyuan Shi, Yixiao Ge, Yujiu Yang, Limin Wang, Ying Shan",
        year=2024,
        url="https://arxiv.org/abs/2409.04410",
    ),
    build=OpenMagvit2,
    from_release=release_arguments,
    # The official evaluation runs the averaged weights.
    layout=Layout(
        wrappers=("state_dict",), ignored=("loss.",), shadow="model_ema.", renames=((r"\.mid_block\.", ".mid."),)
    ),
    variants={
        "imagenet-128-l": _variant("128-resolution", "imagenet_128_L.ckpt", F8),
        "imagenet-256-l": _variant("256-resolution", "imagenet_256_L.ckpt", F16),
        "pretrain-256-16384": _variant("16384-Pretrain", "pretrain256_16384.ckpt", F16, 14),
        "pretrain-256-262144": _variant("262144-Pretrain", "pretrain256_262144.ckpt", F16),
    },
)
