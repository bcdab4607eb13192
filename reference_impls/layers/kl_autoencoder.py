"""The latent diffusion autoencoder with a Gaussian bottleneck, as a part of other methods.

CompVis' `AutoencoderKL` (arXiv 2112.10752) and MAR's KL-16 (arXiv 2406.11838) under our names for their parts
(`layers.ldm_conv`), which the renames `DIFFUSERS` there give diffusers' keys too.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from reference_impls.layers.gaussian import DiagonalGaussian
from reference_impls.layers.ldm_conv import AttentionKeys, LdmDecoder, LdmEncoder, LdmSize
from tokenmark.contracts import MethodError

__all__ = ["KlAutoencoder", "from_diffusers"]


class KlAutoencoder(nn.Module):
    """Images in [-1, 1] to a Gaussian per cell of a grid, and latents back to images.

    Args:
        ch: Width that `ch_mult` multiplies.
        ch_mult: One factor per level, finest first.
        num_res_blocks: Residual blocks per level of the encoder.
        z_channels: Channels of the latents.
        encoder_attention: Levels, 0 the finest, with attention behind every residual block of the encoder.
        decoder_attention: The same for the decoder.
        attention: How the release keeps attention's projections.
        running_order: Whether the decoder holds its coarsest level first, as diffusers does.
        quant_convs: Whether there are 1x1 convolutions around the latents.
    """

    def __init__(
        self,
        *,
        ch: int,
        ch_mult: Sequence[int],
        num_res_blocks: int,
        z_channels: int,
        encoder_attention: Collection[int] = (),
        decoder_attention: Collection[int] = (),
        attention: AttentionKeys = "separate",
        running_order: bool = False,
        quant_convs: bool = True,
    ) -> None:
        super().__init__()
        size = LdmSize(
            ch=ch, ch_mult=ch_mult, num_res_blocks=num_res_blocks, z_channels=z_channels, attention=attention
        )
        self.factor = size.factor
        self.z_channels = z_channels
        self.encoder = LdmEncoder(size, encoder_attention, 2 * z_channels)
        self.decoder = LdmDecoder(size, decoder_attention, running_order=running_order)
        self.quant_conv = nn.Conv2d(2 * z_channels, 2 * z_channels, 1) if quant_convs else nn.Identity()
        self.post_quant_conv = nn.Conv2d(z_channels, z_channels, 1) if quant_convs else nn.Identity()

    def posterior(self, signed: Tensor) -> DiagonalGaussian:
        """The Gaussian `(B, z_channels, h, w)` of images `(B, 3, H, W)`."""
        return DiagonalGaussian(self.quant_conv(self.encoder(signed)))

    def decode(self, latents: Tensor) -> Tensor:
        """Images `(B, 3, H, W)`, not clamped, of latents `(B, z_channels, h, w)`, not scaled."""
        images: Tensor = self.decoder(self.post_quant_conv(latents))
        return images


def from_diffusers(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `KlAutoencoder` for the configuration of a diffusers `AutoencoderKL`.

    Raises MethodError where a level's width is not a multiple of the first one's.
    """
    widths = config["block_out_channels"]
    if any(width % widths[0] for width in widths):
        raise MethodError(f"block_out_channels must be multiples of the first of them, got {list(widths)}")
    down, up = config.get("down_block_types", ()), config.get("up_block_types", ())
    return {
        "ch": widths[0],
        "ch_mult": [width // widths[0] for width in widths],
        "num_res_blocks": config["layers_per_block"],
        "z_channels": config["latent_channels"],
        "encoder_attention": [level for level, name in enumerate(down) if name.startswith("Attn")],
        # diffusers lists the decoder's levels from the coarsest on.
        "decoder_attention": [len(up) - 1 - place for place, name in enumerate(up) if name.startswith("Attn")],
        "attention": "linear",
        "running_order": True,
        "quant_convs": config.get("use_quant_conv", True),
    }
