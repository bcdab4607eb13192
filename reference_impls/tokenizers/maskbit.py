"""MaskBit's tokenizers: VQGAN+, and the same network with the signs of its latents as tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from reference_impls.layers.binary import BinaryQuantizer, EntropyLoss, codes_of_bits
from reference_impls.layers.grid_vq import GridVQ
from reference_impls.layers.maskgit_conv import MASKBIT, ConvDecoder, ConvEncoder
from reference_impls.layers.quantizers import Quantizer, VectorQuantizer
from tokenmark.contracts import Layout, Paper, Release, TokenizerMethod, Variant

__all__ = ["METHOD", "MaskBit", "release_arguments"]


class MaskBit(GridVQ):
    """VQGAN+ and MaskBit's tokenizer (arXiv 2409.16211, sections 3.1 and 3.2); pixels are in [0, 1] inside.

    Args:
        image_size: Side of the images, in pixels; a multiple of 2 ** (levels - 1).
        hidden_channels: Width that `channel_mult` multiplies; a multiple of 32.
        channel_mult: One factor per level, finest first.
        num_res_blocks: Residual blocks per level, and in the middle.
        decoder_res_blocks: The same for the decoder, where it has another number of them.
        token_size: Channels of the latents: bits of a token without a codebook, width of the codebook with one.
        codebook_size: Number of codes of VQGAN+; None for lookup-free quantization.
        l2_norm: Compare latents and codes on the unit sphere (VQGAN+).
        strided: Halve by strided convolutions, as all releases do, and not by average pooling.
        commitment_cost: Weight of the quantizer's commitment term.
        entropy_weight: Weight of the entropy loss; 0 for none (no term at all for VQGAN+).
        entropy_temperature: How soft the entropy loss takes the codes to be.
        entropy_gamma: Weight of the mean distribution's entropy in it.
    """

    signed = False

    def __init__(
        self,
        *,
        image_size: int,
        hidden_channels: int,
        channel_mult: Sequence[int],
        num_res_blocks: int,
        decoder_res_blocks: int | None = None,
        token_size: int,
        codebook_size: int | None = None,
        l2_norm: bool = False,
        strided: bool = True,
        commitment_cost: float = 0.25,
        entropy_weight: float = 0.02,
        entropy_temperature: float = 0.01,
        entropy_gamma: float = 1.0,
    ) -> None:
        blocks, widths = (num_res_blocks, decoder_res_blocks or num_res_blocks), (hidden_channels, channel_mult)
        quantize: Quantizer
        if codebook_size is not None:
            quantize = VectorQuantizer(codebook_size, token_size, l2_norm=l2_norm, commitment_cost=commitment_cost)
        else:
            entropy = EntropyLoss(weight=entropy_weight, temperature=entropy_temperature, gamma=entropy_gamma)
            quantize = lookup_free(token_size, commitment_cost, entropy if entropy_weight else None)
        super().__init__(
            image_size=image_size,
            factor=2 ** (len(channel_mult) - 1),
            encoder=ConvEncoder(*widths, blocks[0], token_size, mid_blocks=blocks[0], strided=strided),
            decoder=ConvDecoder(*widths, blocks[1], token_size, mid_blocks=blocks[1], running_order=True),
            quantize=quantize,
        )


def lookup_free(bits: int, commitment_cost: float, entropy: EntropyLoss | None) -> BinaryQuantizer:
    """The quantizer with two tables that a checkpoint carries along, and that nothing reads."""
    quantize = BinaryQuantizer(bits, commitment_cost=commitment_cost, entropy=entropy)
    quantize.register_buffer("bits_to_indices", codes_of_bits(torch.eye(bits)).int())
    quantize.register_buffer("codebook", quantize.lookup(torch.arange(2**bits)))
    return quantize


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `MaskBit` for the release's `vq_model` configuration, at 256 pixels.

    A lookup-free configuration's `codebook_size` is not read: in the files of 14 bits and more it is wrong (4096).
    """
    lookup = config["quantizer_type"] == "lookup"
    renamed = {
        "commitment_cost": "commitment_cost",
        "entropy_weight": "entropy_loss_weight",
        "entropy_temperature": "entropy_loss_temperature",
        "entropy_gamma": "entropy_gamma",
        "decoder_res_blocks": "num_res_blocks_decoder",
        "l2_norm": "use_l2_normalisation",
        "strided": "sample_with_conv",
    }
    return {
        "image_size": 256,
        **{name: config[name] for name in ("hidden_channels", "channel_mult", "num_res_blocks", "token_size")},
        "codebook_size": config["codebook_size"] if lookup else None,
        **{name: config[theirs] for name, theirs in renamed.items() if theirs in config},
    }


def _variant(repo: str, file: str, token_size: int, codebook_size: int | None = None, note: str = "") -> Variant:
    config = {
        "image_size": 256,
        "hidden_channels": 128,
        "channel_mult": [1, 1, 2, 2, 4],
        "num_res_blocks": 2,
        "token_size": token_size,
        "codebook_size": codebook_size,
    }
    return Variant(config=config, release=Release(f"markweber/{repo}", file, licence="Apache-2.0"), note=note)


def _lfq(bits: int, note: str = "") -> Variant:
    return _variant(f"maskbit_tokenizer_{bits}bit", f"maskbit_tokenizer_{bits}bit.bin", bits, note=note)


METHOD = TokenizerMethod(
    id="maskbit",
    title="MaskBit tokenizer",
    idea="A modernised VQGAN whose token is the signs of its latent's channels: bits, and no embedding table",
    paper=Paper(
        title="MaskBit: Embedding-free Image Generation via Bit Tokens",
        authors="Mark Weber, Lijun Yu, Qihang Yu, Xueqing Deng, Xiaohui Shen, Daniel Cremers, Liang-Chieh Chen",
        year=2024,
        url="https://arxiv.org/abs/2409.16211",
    ),
    build=MaskBit,
    from_release=release_arguments,
    layout=Layout(renames=MASKBIT),
    variants={
        "mini": Variant(
            config={
                "image_size": 32,
                "hidden_channels": 32,
                "channel_mult": [1, 1, 1],
                "num_res_blocks": 1,
                "token_size": 8,
                "entropy_temperature": 1.0,
            },
            weights="maskbit-mini",
            note="8 bits per cell of an 8x8 grid of 32x32 images, trained in this repository",
        ),
        "10bit": _lfq(10),
        "12bit": _lfq(12),
        "14bit": _lfq(14),
        "16bit": _lfq(16),
        "18bit": _lfq(18, "one of the 18 bits never changes, by its authors' word"),
        "vqgan-plus-10bit": _variant("vqgan_plus_paper", "vqgan_plus_10bit.bin", 256, 1024),
        "vqgan-plus-12bit": _variant("vqgan_plus_12bit", "vqgan_plus_12bit.bin", 64, 4096),
    },
)
