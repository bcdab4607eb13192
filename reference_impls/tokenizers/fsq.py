"""FSQ: MaskGIT's convolutional tokenizer with rounding in the place of its codebook.

No release: built from the paper, which trains MaskGIT's VQGAN with this bottleneck (section 5.1). The networks are
those of `maskgit-vq`; of the choices of levels those of the paper's table 1 are here.
"""

from collections.abc import Sequence

from reference_impls.layers.fsq import FiniteScalarQuantizer
from reference_impls.layers.grid_vq import GridVQ
from reference_impls.layers.maskgit_conv import ConvDecoder, ConvEncoder
from tokenmark.contracts import Paper, TokenizerMethod, Variant

__all__ = ["FSQ", "METHOD"]

NOTE = "no release: built from the paper; it has no weights"


class FSQ(GridVQ):
    """MaskGIT's VQGAN with finite scalar quantization (arXiv 2309.15505, sections 3 and 5.1); pixels stay in [0, 1].

    The bottleneck has no loss of its own (section 3.2).

    Args:
        image_size: Side of the images, in pixels.
        hidden_channels: Width that `channel_mult` multiplies; a multiple of 32.
        channel_mult: One factor per level of the networks, finest first.
        num_res_blocks: Residual blocks per level.
        levels: Levels of every channel of a latent; their product is the number of codes.
    """

    signed = False

    def __init__(
        self,
        *,
        image_size: int,
        hidden_channels: int,
        channel_mult: Sequence[int],
        num_res_blocks: int,
        levels: Sequence[int],
    ) -> None:
        sizes = (hidden_channels, channel_mult, num_res_blocks, len(levels))
        super().__init__(
            image_size=image_size,
            factor=2 ** (len(channel_mult) - 1),
            encoder=ConvEncoder(*sizes),
            decoder=ConvDecoder(*sizes),
            quantize=FiniteScalarQuantizer(levels),
        )


def _variant(levels: Sequence[int]) -> Variant:
    sizes = {"image_size": 256, "hidden_channels": 128, "channel_mult": [1, 1, 2, 2, 4], "num_res_blocks": 2}
    return Variant(config={**sizes, "levels": levels}, note=NOTE)


METHOD = TokenizerMethod(
    id="fsq",
    title="FSQ",
    idea="Every channel of a latent is rounded to a few levels: all codes exist from the start, and none is learnt",
    paper=Paper(
        title="Finite Scalar Quantization: VQ-VAE Made Simple",
        authors="Fabian Mentzer, David Minnen, Eirikur Agustsson, Michael Tschannen",
        year=2023,
        url="https://arxiv.org/abs/2309.15505",
    ),
    build=FSQ,
    variants={
        "mini": Variant(
            config={
                "image_size": 32,
                "hidden_channels": 32,
                "channel_mult": [1, 1, 1],
                "num_res_blocks": 1,
                "levels": [8, 6, 5],
            },
            weights="fsq-mini",
            note="240 codes on an 8x8 grid of 32x32 images, trained in this repository",
        ),
        "256-8-6-5": _variant([8, 6, 5]),
        "1024-8-5-5-5": _variant([8, 5, 5, 5]),
        "4096-7-5-5-5-5": _variant([7, 5, 5, 5, 5]),
        "16384-8-8-8-6-5": _variant([8, 8, 8, 6, 5]),
    },
)
