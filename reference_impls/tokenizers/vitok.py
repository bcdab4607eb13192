"""ViTok: an auto-encoder of plain vision transformers, to be scaled in its bottleneck, its encoder or its decoder.

No release: built from the paper. Public code by its first author carries no weights, and ViTok-v2's weights belong to
another method. What the paper leaves open, and what was taken:

- the blocks' norms and biases: LayerNorm, biases everywhere (that gives the parameters which the paper prints);
- how a head's channels are shared by RoPE's axes (time, row, column): evenly, the rest to rows and columns; theta 1e4;
- the gate of the MLP: SiLU, as SwiGLU says (the first author's code has GELU), 8/3 of the width;
- an asymmetric model's encoder: its own width, as the printed parameters need (the code takes the decoder's);
- the posterior is sampled when images are encoded, as in the code; `posterior(images).mean` is there as well;
- images are in [-1, 1] inside;
- stills for the sizes made for video: one stands for a tubelet of equal frames, whose mean is decoded.

Latent ViTok and masked ViTok, two ablations that the paper drops, are not here.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from reference_impls.layers.axial_vit import AxialTransformer, TransformerSize
from reference_impls.layers.gaussian import DiagonalGaussian
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.tokenizer import LatentTokenizer, from_signed, to_signed
from tokenmark.contracts import MethodError, Paper, TokenizerMethod, Variant

__all__ = ["METHOD", "ViTok"]


class ViTok(LatentTokenizer):
    """ViTok (arXiv 2501.09755) for images and, through `clip_posterior` and `decode_clips`, for clips.

    Args:
        image_size: Side of the images, in pixels; a multiple of `patch_size`.
        patch_size: Pixels of a side that become one token, p.
        channels: Channels of a latent, c. The bottleneck is E = tokens times c.
        encoder: Fields of `TransformerSize`.
        decoder: Fields of `TransformerSize`.
        tubelet: Frames that become one token, q; 1 for images.
        frames: Frames of the clips whose table of positions is kept; other multiples of `tubelet` do as well.
        theta: Base of the rotary positions.
    """

    def __init__(
        self,
        *,
        image_size: int,
        patch_size: int,
        channels: int,
        encoder: Mapping[str, Any],
        decoder: Mapping[str, Any],
        tubelet: int = 1,
        frames: int = 1,
        theta: float = 10_000.0,
    ) -> None:
        super().__init__()
        if image_size % patch_size or frames % tubelet:
            raise MethodError(
                f"image_size {image_size} and frames {frames} must be multiples of patch_size {patch_size}"
                f" and tubelet {tubelet}"
            )
        sizes = TransformerSize(**encoder), TransformerSize(**decoder)
        self.image_size, self.channels, self.tubelet = image_size, channels, tubelet
        self.side = image_size // patch_size
        self.max_tokens = self.side**2
        shape, kernel = (frames // tubelet, self.side, self.side), (tubelet, patch_size, patch_size)
        self.patch_embed = nn.Conv3d(3, sizes[0].width, kernel, stride=kernel)
        self.encoder = AxialTransformer(sizes[0], shape, theta)
        self.to_moments = nn.Linear(sizes[0].width, 2 * channels)
        self.from_latents = nn.Linear(channels, sizes[1].width)
        self.decoder = AxialTransformer(sizes[1], shape, theta)
        self.to_pixels = nn.ConvTranspose3d(sizes[1].width, 3, kernel, stride=kernel)

    @property
    def bottleneck(self) -> int:
        """E, the floats that an image is reduced to: tokens times channels."""
        return self.max_tokens * self.channels

    def clip_posterior(self, clips: Tensor) -> DiagonalGaussian:
        """Differentiable: the Gaussian `(B, c, T/q, S/p, S/p)` of clips `(B, 3, T, S, S)` in [0, 1]."""
        patches = self.patch_embed(to_signed(clips.to(self.number_type)))
        shape = patches.shape[2:]
        moments = self.to_moments(self.encoder(patches.flatten(2).transpose(1, 2), shape))
        return DiagonalGaussian(moments.transpose(1, 2).unflatten(2, tuple(shape)))

    def decode_clips(self, latents: Tensor) -> Tensor:
        """Differentiable: clips `(B, 3, T, S, S)` in [0, 1], not clamped, of latents `(B, c, T/q, S/p, S/p)`."""
        shape = latents.shape[2:]
        embedded = self.from_latents(latents.to(self.number_type).flatten(2).transpose(1, 2))
        hidden = self.decoder(embedded, shape).transpose(1, 2).unflatten(2, tuple(shape))
        return from_signed(at_least_float32(self.to_pixels(hidden)))

    def posterior(self, images: Tensor) -> DiagonalGaussian:
        """Differentiable: the Gaussian `(B, c, 1, S/p, S/p)` of images in [0, 1]."""
        return self.clip_posterior(images.unsqueeze(2).expand(-1, -1, self.tubelet, -1, -1))

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Differentiable: images in [0, 1], not clamped, of latents `(B, N, c)`."""
        grid = latents.transpose(1, 2).unflatten(2, (1, self.side, self.side))
        return self.decode_clips(grid).mean(2)


SIZES: Mapping[str, Mapping[str, Any]] = {
    "s": {"width": 768, "layers": 6, "heads": 12},
    "b": {"width": 768, "layers": 12, "heads": 12},
    "l": {"width": 1152, "layers": 24, "heads": 16},
}
"""Small, Base and Large."""

IN_TABLES = ("sb", "sl")
"""The pairs of encoder and decoder whose scores are printed at 16 pixels and 256 tokens (its last tables)."""

NO_RELEASE = "no release: built from the paper; the module's docstring says what it leaves open"


def _config(encoder: str, decoder: str, patch_size: int, channels: int, **others: Any) -> dict[str, Any]:
    sides = {"encoder": SIZES[encoder], "decoder": SIZES[decoder]}
    return {"image_size": 256, "patch_size": patch_size, "channels": channels, **sides, **others}


def _video(tubelet: int, patch_size: int) -> Variant:
    config = _config("s", "b", patch_size, 16, image_size=128, tubelet=tubelet, frames=16)
    return Variant(config=config, note=f"{NO_RELEASE}; made for video of 16 frames, 16 channels taken")


METHOD = TokenizerMethod(
    id="vitok",
    title="ViTok",
    idea="A plain vision transformer as auto-encoder, so that bottleneck, encoder and decoder can be scaled apart",
    paper=Paper(
        title="Learnings from Scaling Visual Tokenizers for Reconstruction and Generation",
        authors=(
            "Philippe Hansen-Estruch, David Yan, Ching-Yao Chung, Orr Zohar, Jialiang Wang, Tingbo Hou, Tao Xu,"
            " Sriram Vishwanath, Peter Vajda, Xinlei Chen"
        ),
        year=2025,
        url="https://arxiv.org/abs/2501.09755",
    ),
    build=ViTok,
    variants={
        **{
            f"{encoder}-{decoder}-16": Variant(
                config=_config(encoder, decoder, 16, 16),
                note=NO_RELEASE if encoder + decoder in IN_TABLES else f"{NO_RELEASE}; not in its final tables",
            )
            for encoder in SIZES
            for decoder in SIZES
        },
        "s-b-8-c4": Variant(config=_config("s", "b", 8, 4), note=NO_RELEASE),
        "s-b-32-c32": Variant(config=_config("s", "b", 32, 32), note=NO_RELEASE),
        "s-b-16-512": Variant(config=_config("s", "b", 16, 16, image_size=512), note=NO_RELEASE),
        "s-b-4x8": _video(4, 8),
        "s-b-8x8": _video(8, 8),
        "s-b-4x16": _video(4, 16),
    },
)
