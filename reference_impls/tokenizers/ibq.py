"""IBQ: VQGAN whose codes are the largest dot products with the codebook, so that all of it is trained at once."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.grid_vq import GridVQ, as_rows
from reference_impls.layers.ldm_conv import LdmDecoder, LdmEncoder, LdmSize
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.quantizers import Quantized, Quantizer
from reference_impls.layers.tokenizer import to_signed
from reference_impls.tokenizers.vqgan import network_arguments
from tokenmark.contracts import Layout, Paper, TokenizerMethod, Variant

__all__ = ["IBQ", "METHOD", "IndexQuantizer"]

MOST_LOGITS = 2**26
"""Logits that are held at once: 2^18 codes for 256 tokens are 2^26, 256 MB in float32."""


class IndexQuantizer(Quantizer):
    """The largest dot product with the codebook's rows, neither normalised (IBQ, arXiv 2412.02692).

    Ties go to the lowest index. Gradients go through the softmax over all rows, also to those that were not chosen.

    Args:
        codebook_size: Number of rows, K.
        dim: Width of a row, D.
        commitment_cost: Weight of the commitment term.
    """

    def __init__(self, codebook_size: int, dim: int, *, commitment_cost: float = 0.25) -> None:
        super().__init__()
        self.commitment_cost = commitment_cost
        rows = nn.init.uniform_(torch.empty(codebook_size, dim), -1.0 / codebook_size, 1.0 / codebook_size)
        self.embedding = nn.Embedding(codebook_size, dim, _weight=rows)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The only codebook's."""
        return (self.embedding.num_embeddings,)

    def lookup(self, codes: Tensor) -> Tensor:
        """Rows `(..., D)` of int64 `codes`."""
        return functional.embedding(codes, at_least_float32(self.embedding.weight))

    @torch.no_grad()
    def codes(self, latents: Tensor) -> Tensor:
        """Codes `(...)` of latents `(..., D)`, never with more than `MOST_LOGITS` logits in memory."""
        with torch.autocast(latents.device.type, enabled=False):
            flat = at_least_float32(latents).reshape(-1, latents.shape[-1])
            rows = at_least_float32(self.embedding.weight)
            parts = flat.split(max(1, MOST_LOGITS // len(rows)))
            return torch.cat([(part @ rows.T).argmax(-1) for part in parts]).reshape(latents.shape[:-1])

    def forward(self, latents: Tensor) -> Quantized:
        """Quantise `latents` `(..., D)`."""
        with torch.autocast(latents.device.type, enabled=False):
            latents = at_least_float32(latents)
            table = at_least_float32(self.embedding.weight)
            logits = latents @ table.T
            codes = logits.argmax(-1)
            rows = self.lookup(codes)
            soft = logits.softmax(-1) @ table
            codebook_loss = (rows - latents.detach()).square().mean()
            commitment_loss = self.commitment_cost * (rows.detach() - latents).square().mean()
            return Quantized(codes, soft + (rows - soft).detach(), codebook_loss, commitment_loss)


class IBQ(GridVQ):
    """IBQ's tokenizer (arXiv 2412.02692): VQGAN's network, deeper, with an `IndexQuantizer`; the release's keys.

    Args:
        image_size: Side of the images, in pixels.
        ch: Width that `ch_mult` multiplies.
        ch_mult: One factor per level, finest first.
        num_res_blocks: Residual blocks per level of the encoder.
        attn_levels: Levels, 0 the finest, with attention behind every residual block.
        z_channels: Channels between the networks and the bottleneck.
        codebook_size: Number of codes.
        codebook_dim: Width of a code.
    """

    quantize: IndexQuantizer

    def __init__(
        self,
        *,
        image_size: int,
        ch: int = 128,
        ch_mult: Sequence[int] = (1, 1, 2, 2, 4),
        num_res_blocks: int = 4,
        attn_levels: Collection[int] = (4,),
        z_channels: int = 256,
        codebook_size: int,
        codebook_dim: int = 256,
    ) -> None:
        size = LdmSize(ch=ch, ch_mult=ch_mult, num_res_blocks=num_res_blocks, z_channels=z_channels)
        super().__init__(
            image_size=image_size,
            factor=size.factor,
            encoder=LdmEncoder(size, attn_levels),
            decoder=LdmDecoder(size, attn_levels),
            quantize=IndexQuantizer(codebook_size, codebook_dim),
            quant_conv=nn.Conv2d(z_channels, codebook_dim, 1),
            post_quant_conv=nn.Conv2d(codebook_dim, z_channels, 1),
        )

    def encode_codes(self, images: Tensor) -> Tensor:
        """Codes `(B, N)` in row-major order."""
        return self.quantize.codes(as_rows(self.encode_grid(to_signed(images))))


METHOD = TokenizerMethod(
    id="ibq",
    title="IBQ",
    idea="Gradients reach every code through a softmax over the codebook, which therefore scales to 262,144 codes",
    paper=Paper(
        title="Scalable Image Tokenization with Index Backpropagation Quantization",
        authors="Fengyuan Shi, Zhuoyan Luo, Yixiao Ge, Yujiu Yang, Ying Shan, Limin Wang",
        year=2024,
        url="https://arxiv.org/abs/2412.02692",
    ),
    build=IBQ,
    from_release=network_arguments,
    # The official evaluation runs the averaged weights, which the file has beside the plain ones.
    layout=Layout(wrappers=("state_dict",), ignored=("loss.",), shadow="model_ema."),
    variants={
        f"imagenet-{size}": Variant(
            config={"image_size": 256, "codebook_size": size},
            note="weights: see TencentARC/SEED-Voken",
        )
        for size in (1024, 8192, 16384, 262144)
    },
)
