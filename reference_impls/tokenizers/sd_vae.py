"""SD-VAE: Stable Diffusion's autoencoder with its fine-tuned decoders, which DiT and its heirs write for."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from reference_impls.layers.kl_autoencoder import KlAutoencoder, from_diffusers
from reference_impls.layers.kl_tokenizer import KEYS, KlTokenizer
from reference_impls.layers.ldm_conv import DIFFUSERS
from tokenmark.contracts import Layout, Paper, Release, TokenizerMethod, Variant

__all__ = ["LATENT_SCALE", "METHOD", "RENAMES", "SdVae", "release_arguments"]

LATENT_SCALE = 0.18215
"""What Stable Diffusion and DiT multiply its latents with, so that their standard deviation is about 1."""

RENAMES = (
    *DIFFUSERS,
    # Files of 2022 call attention's projections by their older names, which diffusers converts as it loads them.
    (r"\.attn_1\.query\.", ".attn_1.q."),
    (r"\.attn_1\.key\.", ".attn_1.k."),
    (r"\.attn_1\.value\.", ".attn_1.v."),
    (r"\.attn_1\.proj_attn\.", ".attn_1.proj_out."),
    *KEYS,
)
"""The key of a diffusers file, older or newer, to ours."""


class SdVae(KlTokenizer):
    """Latent diffusion's KL-f8 (arXiv 2112.10752, section 3.1 and appendix G): 8 pixels to a latent of 4 channels.

    Args:
        image_size: Side of the images, in pixels.
        ch: Width that `ch_mult` multiplies.
        ch_mult: One factor per level, finest first.
        num_res_blocks: Residual blocks per level of the encoder.
        z_channels: Channels of a latent.
        encoder_attention: Levels of the encoder with attention, besides the one in the middle; the release has none.
        decoder_attention: The same for the decoder.
        latent_scale: What generators multiply latents with.
    """

    def __init__(
        self,
        *,
        image_size: int,
        ch: int = 128,
        ch_mult: Sequence[int] = (1, 2, 4, 4),
        num_res_blocks: int = 2,
        z_channels: int = 4,
        encoder_attention: Collection[int] = (),
        decoder_attention: Collection[int] = (),
        latent_scale: float = LATENT_SCALE,
    ) -> None:
        vae = KlAutoencoder(
            ch=ch,
            ch_mult=ch_mult,
            num_res_blocks=num_res_blocks,
            z_channels=z_channels,
            encoder_attention=encoder_attention,
            decoder_attention=decoder_attention,
            attention="linear",
            running_order=True,
        )
        super().__init__(vae, image_size=image_size, latent_scale=latent_scale)


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `SdVae` for the sizes in a diffusers `AutoencoderKL`'s configuration.

    The images' size is not among them: the network takes any, and one file serves all.
    """
    sizes = from_diffusers(config)
    wanted = ("ch", "ch_mult", "num_res_blocks", "z_channels", "encoder_attention", "decoder_attention")
    return {
        **{name: sizes[name] for name in wanted},
        "latent_scale": config.get("scaling_factor", LATENT_SCALE),
    }


FINE_TUNED: Mapping[str, str] = {
    "ema": "with the losses that it was trained with",
    "mse": "on, with more weight on the squared error",
}
"""How the two decoders came about; their encoder is the same."""


def _variant(decoder: str, image_size: int) -> Variant:
    return Variant(
        config={"image_size": image_size},
        release=Release(f"stabilityai/sd-vae-ft-{decoder}", "diffusion_pytorch_model.safetensors", licence="MIT"),
        note=f"decoder fine-tuned {FINE_TUNED[decoder]}; one file for all image sizes",
    )


METHOD = TokenizerMethod(
    id="sd-vae",
    title="SD-VAE",
    idea="A convolutional autoencoder with 4 continuous channels per 8x8 pixels: a small grid for diffusion to run on",
    paper=Paper(
        title="High-Resolution Image Synthesis with Latent Diffusion Models",
        authors="Robin Rombach, Andreas Blattmann, Dominik Lorenz, Patrick Esser, Björn Ommer",
        year=2022,
        url="https://arxiv.org/abs/2112.10752",
    ),
    build=SdVae,
    from_release=release_arguments,
    layout=Layout(renames=RENAMES),
    variants={
        "ft-ema": _variant("ema", 256),
        "ft-mse": _variant("mse", 256),
        "ft-ema-512": _variant("ema", 512),
        "ft-mse-512": _variant("mse", 512),
    },
)
