"""Instella-T2I's tokenizer: an image as a short sequence of binary vectors."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reference_impls.layers.instella_vit import InstellaDecoder, InstellaEncoder, InstellaSize, RotaryAxes
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.tokenizer import CodeTokenizer, from_signed, to_signed
from tokenmark.contracts import Layout, MethodError, Paper, Release, TokenizerMethod, Variant

__all__ = ["METHOD", "InstellaT2I", "release_arguments"]


class BitEmbedding(nn.Module):
    """Latents to bits, and bits to the sum of their embeddings; a bit that is zero adds nothing."""

    def __init__(self, bits: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Parameter(width**-0.5 * torch.randn(bits, width))
        self.proj = nn.Sequential(nn.Linear(width, bits))

    def forward(self, latents: Tensor) -> Tensor:
        """Logits `(B, N, bits)` of latents `(B, N, width)`; a bit is one where its logit is above zero."""
        return at_least_float32(self.proj(latents))

    def lookup(self, bits: Tensor) -> Tensor:
        """Latents `(B, N, width)` of bits `(B, N, bits)`."""
        return bits.to(self.embed.dtype) @ self.embed


class InstellaT2I(CodeTokenizer):
    """Instella-T2I's binary autoencoder (arXiv 2506.21022); pixels are in [-1, 1] inside.

    A token's K bits are codes of K codebooks of two. Its networks take any image whose sides are multiples of the
    patch size and of what they resample by.

    Args:
        image_size: Side of the images, in pixels.
        patch_size: Side of a patch, in pixels.
        num_latent_tokens: Number of tokens.
        bits: Bits of a token, two or more.
        encoder: Fields of `InstellaSize`.
        decoder: Fields of `InstellaSize`.
        rope_dims: Channels of a head for the three axes of its positions.
        scale_pixels: Image size whose positions every grid is stretched to; None for one position per patch.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int = 16,
        num_latent_tokens: int,
        bits: int,
        encoder: Mapping[str, Any],
        decoder: Mapping[str, Any],
        rope_dims: Sequence[int],
        scale_pixels: int | None = 1024,
    ) -> None:
        super().__init__()
        sizes = InstellaSize(**encoder), InstellaSize(**decoder)
        factor = patch_size * 2 ** max(len(size.resampled) for size in sizes)
        if image_size % factor:
            raise MethodError(f"image_size must be a multiple of {factor}, got {image_size}")
        if bits < 2:
            raise MethodError(f"a token must have two bits or more, got {bits}")
        for size in sizes:
            if sum(rope_dims) != size.head_dim or any(dim % 2 for dim in rope_dims):
                raise MethodError(f"rope_dims must be even and in sum {size.head_dim}, got {list(rope_dims)}")
        self.image_size, self.patch_size = image_size, patch_size
        self.max_tokens, self.bits = num_latent_tokens, bits
        rope = RotaryAxes(dims=rope_dims, span=None if scale_pixels is None else scale_pixels / patch_size)
        self.encoder = InstellaEncoder(sizes[0], rope, patch_size=patch_size, num_latent_tokens=num_latent_tokens)
        self.decoder = InstellaDecoder(sizes[1], rope, inputs=sizes[0].width)
        self.to_pixel = nn.Linear(sizes[1].width, 3 * patch_size**2)
        self.quantizer = BitEmbedding(bits, sizes[0].width)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Two values for every bit."""
        return (2,) * self.bits

    def encode_codes(self, images: Tensor) -> Tensor:
        """Bits `(B, N, K)`, int64 0 and 1."""
        return (self.bit_logits(to_signed(images)) > 0).long()

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Images of bits `(B, N, K)`."""
        return from_signed(self.decode_latents(self.quantizer.lookup(codes)))

    def bit_logits(self, signed: Tensor) -> Tensor:
        """Differentiable: logits `(B, N, K)` of the bits of images in [-1, 1]."""
        logits: Tensor = self.quantizer(self.encoder(signed))
        return logits

    def decode_latents(self, latents: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Differentiable: images in [-1, 1], not clamped, of sums of bits' embeddings `(B, N, width)`.

        The same latents can be decoded to any `size` (height and width in pixels); `image_size` squared by default.
        """
        height, width = (side // self.patch_size for side in size or (self.image_size, self.image_size))
        pixels = at_least_float32(self.to_pixel(self.decoder(latents, (height, width))))
        # A patch reads (row, column, colour).
        patches = pixels.reshape(len(pixels), height, width, self.patch_size, self.patch_size, 3)
        return patches.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `InstellaT2I` for the release's configuration, whose `codebook_size` counts bits.

    Where the configuration has two image sides, the first is taken; where it has none, the paper's 1024.
    """
    side = config.get("image_size", PAPER_SIZE)
    sides = {
        name: {
            "layers": config[f"{name}_layers"],
            "heads": config[f"{name}_num_heads"],
            "head_dim": config[f"{name}_head_dim"],
            "resampled": config[resampled],
        }
        for name, resampled in (("encoder", "downsample_idx"), ("decoder", "upsample_idx"))
    }
    return {
        "image_size": side if isinstance(side, int) else side[0],
        "patch_size": config["patch_size"],
        "num_latent_tokens": config["num_latent_tkns"],
        "bits": config["codebook_size"],
        **sides,
        "rope_dims": config["axes_dims_rope"],
        # Not in the release's file: its scripts set it.
        "scale_pixels": config.get("scale_pixels", PAPER_SIZE),
    }


PAPER_SIZE = 1024

METHOD = TokenizerMethod(
    id="instella-t2i",
    title="Instella-T2I binary autoencoder",
    idea="A few tokens are binary vectors instead of codes: 128 of 64 bits stand for an image of 1024 pixels",
    paper=Paper(
        title="Instella-T2I: Pushing the Limits of 1D Discrete Latent Space Image Generation",
        authors=(
            "Ze Wang, Hao Chen, Benran Hu, Jiang Liu, Ximeng Sun, Jialian Wu, Yusheng Su, Xiaodong Yu,"
            " Emad Barsoum, Zicheng Liu"
        ),
        year=2025,
        url="https://arxiv.org/abs/2506.21022",
    ),
    build=InstellaT2I,
    from_release=release_arguments,
    layout=Layout(
        renames=(
            (r"\.mlp\.gate_proj\.", ".mlp.fc1_g."),
            (r"\.mlp\.up_proj\.", ".mlp.fc1_x."),
            (r"\.mlp\.down_proj\.", ".mlp.fc2."),
        )
    ),
    variants={
        "bae-128x64": Variant(
            config={
                "image_size": PAPER_SIZE,
                "patch_size": 16,
                "num_latent_tokens": 128,
                "bits": 64,
                "encoder": {"layers": 12, "heads": 12, "head_dim": 64, "resampled": [7]},
                "decoder": {"layers": 16, "heads": 16, "head_dim": 64, "resampled": [7]},
                "rope_dims": [8, 28, 28],
                "scale_pixels": PAPER_SIZE,
            },
            release=Release("amd/Instella-T2I", "bae/model.safetensors", licence="Instella-T2I RAIL-MS, research only"),
            note="it takes other image sizes too, with positions stretched to those of 1024 pixels",
        ),
    },
)
