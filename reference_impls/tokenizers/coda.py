"""CODA: an autoencoder with continuous latents, adapted to codes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from reference_impls.layers.attention_quantizer import AttentionQuantizer
from reference_impls.layers.gaussian import DiagonalGaussian, draw_noise
from reference_impls.layers.kl_autoencoder import KlAutoencoder, from_diffusers
from reference_impls.layers.ldm_conv import DIFFUSERS, attention_levels
from reference_impls.layers.lora import adapt_convolutions
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.token_checks import need_noise, pack_codes
from reference_impls.layers.tokenizer import CodeTokenizer, from_signed, to_signed
from reference_impls.tokenizers.mar_vae import LATENT_SCALE
from tokenmark.contracts import Layout, MethodError, Paper, TokenizerMethod, Tokens, Variant

__all__ = ["METHOD", "Coda", "release_arguments"]


class Coda(CodeTokenizer):
    """CODA (arXiv 2503.17760): LoRA on the convolutions of a VAE, and attention to a codebook over several scales.

    Args:
        image_size: Side of the images, in pixels.
        vae: Arguments of the `KlAutoencoder` that is adapted.
        scale: The latents are multiplied by it before they are quantised.
        shift: What is taken off the latents before that.
        lora_rank: Channels of the low-rank convolutions.
        lora_modules: A convolution of the VAE is adapted if its name holds one of these.
        codebook_size: Number of codes.
        scales: Sides of the grids of codes, small to large.
        attn_dim: Channels of queries and keys; those of the latents if None.
        norm: Divide queries and keys by their root mean square.
        sample_posterior: Draw the latents from the VAE's Gaussian, as the release does in evaluation too
            (train_mar.py, train_flux.py: `latent_dist.sample()`); else quantise its mean.
    """

    def __init__(
        self,
        *,
        image_size: int,
        vae: Mapping[str, Any],
        scale: float,
        shift: float = 0.0,
        lora_rank: int = 32,
        lora_modules: Sequence[str] = ("conv1", "conv2"),
        codebook_size: int,
        scales: Sequence[int],
        attn_dim: int | None = 32,
        norm: bool = True,
        sample_posterior: bool = True,
    ) -> None:
        super().__init__()
        self.image_size, self.scale, self.shift = image_size, scale, shift
        self.stochastic = sample_posterior
        self.vae = KlAutoencoder(**vae)
        if image_size % self.vae.factor:
            raise MethodError(f"image_size must be a multiple of {self.vae.factor}, got {image_size}")
        self.grid = image_size // self.vae.factor
        for side in (self.vae.encoder, self.vae.decoder):
            adapt_convolutions(side, lora_rank, lora_modules)
        channels = self.vae.z_channels
        self.quantizer = AttentionQuantizer(
            codebook_size=codebook_size, channels=channels, scales=scales, attn_dim=attn_dim or channels, norm=norm
        )
        self.max_tokens = self.quantizer.length

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """One codebook, for all scales."""
        return (self.quantizer.codebook_size,)

    def posterior(self, images: Tensor) -> DiagonalGaussian:
        """The VAE's Gaussian `(B, z, h, w)` of images in [0, 1]."""
        return self.vae.posterior(to_signed(images))

    def normalised(self, latents: Tensor) -> Tensor:
        """The VAE's latents as the quantiser takes them."""
        return (latents - self.shift) * self.scale

    def decode_grid(self, quantized: Tensor) -> Tensor:
        """Images in [-1, 1], not clamped, of what the quantiser gives, `(B, z, h, w)`."""
        return at_least_float32(self.vae.decode((quantized / self.scale + self.shift).to(self.number_type)))

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Images of codes `(B, N)`, the scales one after the other."""
        return from_signed(self.decode_grid(self.quantizer.lookup(codes, self.grid, self.grid)))

    def _encode(self, images: Tensor, tokens: int | None, generator: torch.Generator | None) -> Tokens:  # noqa: ARG002
        posterior = self.posterior(images)
        latents = posterior.mean
        if self.stochastic:
            latents = posterior.sample(draw_noise(posterior.mean, need_noise(generator, "encode")))
        return pack_codes(self.quantizer(self.normalised(latents)).codes, self.codebook_sizes)


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Coda` for a release's configuration; the VAE's own stands under `vae`."""
    vae = config["vae"]
    if config["norm_type"] not in (None, "rms_norm"):
        raise MethodError(f"CODA normalises queries and keys by 'rms_norm' or not at all, got {config['norm_type']!r}")
    if vae["type"].startswith("flux"):
        sizes = from_diffusers({**vae, "latent_channels": config["latent_channels"], "use_quant_conv": False})
        scaling = {"scale": vae["scaling_factor"], "shift": vae["shift_factor"]}
    else:
        sizes = {name: vae[name] for name in ("ch", "ch_mult", "num_res_blocks")}
        sizes["z_channels"] = config["latent_channels"]
        sizes["encoder_attention"] = attention_levels(len(vae["ch_mult"]), config["image_size"], (16,))
        scaling = {"scale": LATENT_SCALE, "shift": 0.0}
    return {
        "image_size": config["image_size"],
        "vae": sizes,
        **scaling,
        "lora_rank": config["lora_rank"],
        "lora_modules": config["lora_modules"],
        "codebook_size": config["codebook_size"],
        "scales": config["patch_size_list"],
        "attn_dim": config["attn_dim"],
        "norm": config["norm_type"] is not None,
    }


MAR: Mapping[str, Any] = {
    "ch": 128,
    "ch_mult": [1, 1, 2, 2, 4],
    "num_res_blocks": 2,
    "z_channels": 16,
    "encoder_attention": [4],
}
FLUX: Mapping[str, Any] = from_diffusers(
    {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 16, "use_quant_conv": False}
)

METHOD = TokenizerMethod(
    id="coda",
    title="CODA",
    idea="A VAE that compresses well already is given codes by LoRA and by attention to a codebook over scales",
    paper=Paper(
        title="CODA: Repurposing Continuous VAEs for Discrete Tokenization",
        authors="Zeyu Liu, Zanlin Ni, Yeguo Hua, Xin Deng, Xiao Ma, Cheng Zhong, Gao Huang",
        year=2025,
        url="https://arxiv.org/abs/2503.17760",
    ),
    build=Coda,
    from_release=release_arguments,
    layout=Layout(renames=DIFFUSERS),
    variants={
        "mar-16384": Variant(
            config={
                "image_size": 256,
                "vae": MAR,
                "scale": LATENT_SCALE,
                "lora_modules": ["conv1", "conv2", "upsample", "downsample"],
                "codebook_size": 16384,
                "scales": [1, 2, 3, 4, 5, 6, 8, 10, 13, 16],
            },
            note="Weights in two files, shuidi0020/CODA on the Hugging Face hub, mar_v16384/: vae_ema.pth holds the "
            "keys under `vae.`, quantizer_ema.pth those under `quantizer.`; no one file holds both",
        ),
        "flux-65536": Variant(
            config={
                "image_size": 256,
                "vae": FLUX,
                "scale": 0.3611,
                "shift": 0.1159,
                "codebook_size": 65536,
                "scales": [1, 2, 3, 4, 6, 9, 13, 18, 24, 32],
            },
            note="Weights in two files, as of mar-16384, in flux_v65536/; scale and shift are FLUX.1's own",
        ),
    },
)
