"""MaskGIT's VQGAN: a convolutional tokenizer without attention, and the pixel decoder of legacy TiTok."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from reference_impls.layers.maskgit_conv import ConvDecoder, ConvEncoder
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.quantizers import Quantized, TrainOutput, VectorQuantizer
from reference_impls.layers.tokenizer import CodeTokenizer
from tokenmark.contracts import MethodError, Paper, Release, TokenizerMethod, Variant

__all__ = ["METHOD", "MaskGitVQ", "release_arguments"]


class MaskGitVQ(CodeTokenizer):
    """MaskGIT's first stage (arXiv 2202.04200, section 3.1), with the release's keys.

    Args:
        image_size: Side of the images, in pixels; a multiple of 2 ** (levels - 1).
        hidden_channels: Width that `channel_mult` multiplies; a multiple of 32.
        channel_mult: One factor per level, finest first.
        num_res_blocks: Residual blocks per level.
        z_channels: Channels of the latents, and width of the codebook.
        codebook_size: Number of codes.
    """

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
        super().__init__()
        factor = 2 ** (len(channel_mult) - 1)
        if image_size % factor:
            raise MethodError(f"image_size must be a multiple of {factor}, got {image_size}")
        self.image_size = image_size
        self.grid = image_size // factor
        self.max_tokens = self.grid**2
        sizes = (hidden_channels, channel_mult, num_res_blocks, z_channels)
        self.encoder = ConvEncoder(*sizes)
        self.decoder = ConvDecoder(*sizes)
        self.quantize = VectorQuantizer(codebook_size, z_channels)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """One codebook."""
        return (self.quantize.codebook_size,)

    def encode_codes(self, images: Tensor) -> Tensor:
        """Codes `(B, h*w)`, one per cell of the grid in row-major order."""
        return self.quantize_images(images).codes

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Images of codes `(B, h*w)`."""
        return self.decode_latents(self.quantize.lookup(codes))

    def quantize_images(self, images: Tensor) -> Quantized:
        """Differentiable: latents `(B, h*w, z_channels)` of images, quantised."""
        latents = self.encoder(images.to(self.quantize.embedding.weight.dtype))
        quantized: Quantized = self.quantize(latents.flatten(2).transpose(1, 2))
        return quantized

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Differentiable: images, not clamped, of quantised latents `(B, h*w, z_channels)`."""
        grid = latents.transpose(1, 2).reshape(*latents.shape[::2], self.grid, self.grid)
        return at_least_float32(self.decoder(grid.to(self.decoder.conv_in.weight.dtype)))

    def forward_train(self, images: Tensor) -> TrainOutput:
        """One differentiable pass over images `(B, 3, S, S)`; VQGAN (arXiv 2012.09841) eq. 4 without its pixel term."""
        quantized = self.quantize_images(images)
        return TrainOutput(self.decode_latents(quantized.quantized), quantized.loss, quantized.codes)


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
