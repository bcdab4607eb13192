"""DiTo: an autoencoder that is trained by nothing but its decoder's flow-matching loss."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.flow import euler, uniform_times
from reference_impls.layers.gaussian import draw_noise
from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.layers.ldm_conv import LdmEncoder, LdmSize
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.timed_unet import TimedUNet
from reference_impls.layers.token_checks import need_noise, pack_latents
from reference_impls.layers.tokenizer import LatentTokenizer, from_signed, latents_of, to_signed
from tokenmark.contracts import Layout, MethodError, Paper, TokenizerMethod, Tokens, Variant

__all__ = ["METHOD", "DiTo", "release_arguments"]

TIMESCALE = 1000.0
"""What times in [0, 1] are multiplied by for the network (`render_diffusion` in the release's configurations)."""


class DiTo(LatentTokenizer):
    """DiTo (arXiv 2501.18593): latents of a convolutional encoder, normalised as a whole; a U-Net's flow shows them.

    There is no Gaussian and no codebook: the only bottleneck is a layer norm over all latents of an image.

    Args:
        image_size: Side of the images, in pixels.
        ch: Width of the encoder that `ch_mult` multiplies.
        ch_mult: One factor per level, finest first.
        num_res_blocks: Residual blocks per level.
        z_channels: Channels of the latents.
        widths: Channels of the U-Net's levels, finest first.
        time_features: Sinusoids of the U-Net's time.
        time_width: Channels of its embedding.
        sample_steps: Steps of the decoder.
    """

    stochastic = False
    draws_to_decode = True

    def __init__(
        self,
        *,
        image_size: int,
        ch: int = 128,
        ch_mult: Sequence[int] = (1, 2, 4, 4),
        num_res_blocks: int = 2,
        z_channels: int = 4,
        widths: Sequence[int],
        time_features: int = 320,
        time_width: int = 1280,
        sample_steps: int = 50,
    ) -> None:
        super().__init__()
        size = LdmSize(ch=ch, ch_mult=ch_mult, num_res_blocks=num_res_blocks, z_channels=z_channels)
        multiple = max(size.factor, 2 ** (len(widths) - 1))
        if image_size % multiple:
            raise MethodError(f"image_size must be a multiple of {multiple}, got {image_size}")
        if sample_steps < 1:
            raise MethodError(f"sample_steps must be at least 1, got {sample_steps}")
        self.image_size, self.grid, self.channels = image_size, image_size // size.factor, z_channels
        self.max_tokens, self.sample_steps = self.grid**2, sample_steps
        self.encoder = nn.Sequential(LdmEncoder(size, ()), nn.Conv2d(z_channels, z_channels, 1))
        self.renderer = TimedUNet(
            inputs=3 + z_channels, outputs=3, widths=widths, time_features=time_features, time_width=time_width
        )

    def _encode(self, images: Tensor, tokens: int | None, generator: torch.Generator | None) -> Tokens:  # noqa: ARG002
        return pack_latents(as_rows(self.normalised(self.encoder(to_signed(images)))))

    def _decode(self, tokens: Tokens, generator: torch.Generator | None, text: Tensor | None) -> Tensor:  # noqa: ARG002
        latents = as_grid(latents_of(tokens).to(self.number_type), self.grid)
        noise = draw_noise(latents.new_empty(len(latents), 3, *[self.image_size] * 2), need_noise(generator, "decode"))
        return from_signed(self.sample(latents, noise))

    @staticmethod
    def normalised(latents: Tensor) -> Tensor:
        """Differentiable: `(B, C, h, w)` with mean 0 and variance 1 over all that an image has."""
        return functional.layer_norm(at_least_float32(latents), latents.shape[1:])

    def velocity(self, noisy: Tensor, times: Tensor, latents: Tensor) -> Tensor:
        """Differentiable: what the renderer gives, the image minus the noise, `(B, 3, H, W)`.

        Args:
            noisy: Images in [-1, 1] and noise, mixed.
            times: `(B,)`, from 0 (image) to 1000 (noise).
            latents: `(B, C, h, w)`.
        """
        images: Tensor = self.renderer(noisy.to(self.number_type), times, latents)
        return images

    def sample(self, latents: Tensor, noise: Tensor) -> Tensor:
        """Images in [-1, 1], not clamped, of latents `(B, C, h, w)`, from given noise `(B, 3, H, W)`."""

        def slope(x: Tensor, time: float) -> Tensor:
            return -self.velocity(x, x.new_full((len(x),), TIMESCALE * time), latents)

        return euler(slope, noise, uniform_times(self.sample_steps))


def release_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `DiTo` for the sizes in a release's configuration."""
    renderer = config["renderer"]
    return {
        "image_size": config["image_size"],
        **{name: config["encoder"][name] for name in ("ch", "ch_mult", "num_res_blocks")},
        "z_channels": config["z_shape"][0],
        "widths": [renderer["c0"], renderer["c1"], renderer["c2"], renderer["c2"]],
        "time_features": renderer["pe_dim"],
        "time_width": renderer["t_dim"],
        "sample_steps": config["render_n_steps"],
    }


def _variant(*widths: int) -> Variant:
    return Variant(
        config={"image_size": 256, "widths": [*widths, widths[-1]]},
        note="its authors published the code and no weights",
    )


METHOD = TokenizerMethod(
    id="dito",
    title="DiTo",
    idea="One loss for the whole autoencoder: that its decoder, a flow from noise, finds the image by the latents",
    paper=Paper(
        title="Diffusion Autoencoders are Scalable Image Tokenizers",
        authors="Yinbo Chen, Rohit Girdhar, Xiaolong Wang, Sai Saketh Rambhatla, Ishan Misra",
        year=2025,
        url="https://arxiv.org/abs/2501.18593",
    ),
    build=DiTo,
    from_release=release_arguments,
    layout=Layout(
        ignored=("zdm_net.", "zdm_net_ema."),  # the latent diffusion model that is trained on top
        renames=(
            (r"^renderer\.net\.", "renderer."),
            (r"\.embed_image\.f\.", ".embed_image."),
            (r"\.output\.gn\.", ".norm."),
            (r"\.output\.f\.", ".output."),
        ),
    ),
    variants={
        "b-f8c4": _variant(128, 256, 512),
        "l-f8c4": _variant(192, 384, 768),
        "xl-f8c4": _variant(320, 640, 1024),
    },
)
