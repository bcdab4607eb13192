"""A tokenizer around latent diffusion's autoencoder: one latent per cell of a grid."""

import torch
from torch import Tensor

from reference_impls.layers.gaussian import DiagonalGaussian, draw_noise
from reference_impls.layers.grid_vq import as_grid, as_rows
from reference_impls.layers.kl_autoencoder import KlAutoencoder
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.quantizers import TrainOutput
from reference_impls.layers.tokenizer import LatentTokenizer, from_signed, to_signed
from tokenmark.contracts import MethodError

__all__ = ["KEYS", "KlTokenizer"]

KEYS = ((r"^(encoder|decoder|quant_conv|post_quant_conv)\.", r"vae.\1."),)
"""The autoencoder's own key to that of a module which holds it as `vae`."""


class KlTokenizer(LatentTokenizer):
    """An autoencoder with a Gaussian per cell of a grid (arXiv 2112.10752, section 3.1).

    Its latents are the posterior's own. Generators see them times `latent_scale`, and divide before decoding.

    Args:
        vae: The autoencoder.
        image_size: Side of the images, in pixels.
        latent_scale: What generators multiply latents with.
    """

    def __init__(self, vae: KlAutoencoder, *, image_size: int, latent_scale: float) -> None:
        super().__init__()
        if image_size % vae.factor:
            raise MethodError(f"image_size must be a multiple of {vae.factor}, got {image_size}")
        self.vae = vae
        self.image_size, self.channels, self.latent_scale = image_size, vae.z_channels, latent_scale
        self.grid = image_size // vae.factor
        self.max_tokens = self.grid**2

    def posterior(self, images: Tensor) -> DiagonalGaussian:
        """Differentiable: the Gaussian `(B, C, h, w)` of images in [0, 1]."""
        return self.vae.posterior(to_signed(images.to(self.number_type)))

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Differentiable: images in [0, 1], not clamped, of latents `(B, N, C)`."""
        grid = as_grid(latents.to(self.number_type), self.grid)
        return from_signed(at_least_float32(self.vae.decode(grid)))

    def forward_train(self, images: Tensor, generator: torch.Generator) -> TrainOutput:
        """One differentiable pass over images `(B, 3, S, S)`: latents are drawn, the loss is the mean KL divergence."""
        posterior = self.posterior(images)
        sample = posterior.sample(draw_noise(posterior.mean, generator))
        return TrainOutput(self.decode_latents(as_rows(sample)), posterior.kl().mean(), None)
