"""The bottleneck of an autoencoder with continuous latents: a diagonal Gaussian, and the noise it is drawn with."""

from collections.abc import Callable

import torch
from torch import Tensor

from reference_impls.layers.precision import at_least_float32

__all__ = ["DiagonalGaussian", "draw_exponential", "draw_noise", "draw_uniform"]


def draw_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise shaped as `like`, one image after the other, so that batches do not change it.

    It is drawn in float32 on the generator's device, as releases draw theirs on the CPU.
    """
    return _per_image(like, generator, torch.Tensor.normal_)


def draw_exponential(like: Tensor, generator: torch.Generator) -> Tensor:
    """Exponential(1) noise, drawn as `draw_noise` draws; minus its logarithm is Gumbel noise."""
    return _per_image(like, generator, torch.Tensor.exponential_)


def draw_uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform noise in [0, 1), drawn as `draw_noise` draws; below p with probability p."""
    return _per_image(like, generator, torch.Tensor.uniform_)


def _per_image(like: Tensor, generator: torch.Generator, fill: Callable[..., Tensor]) -> Tensor:
    draws = [fill(torch.empty(like.shape[1:], device=generator.device), generator=generator) for _ in range(len(like))]
    return torch.stack(draws).to(like) if draws else torch.zeros_like(like)


class DiagonalGaussian:
    """A Gaussian per latent, read from an encoder's moments (VAE, arXiv 1312.6114).

    Args:
        moments: `(B, 2C, ...)`: C means, then C log-variances, which are clamped to [-30, 20] as in the
            latent diffusion code (arXiv 2112.10752) that TiTok takes its bottleneck from.
    """

    def __init__(self, moments: Tensor) -> None:
        self.mean, logvar = at_least_float32(moments).chunk(2, dim=1)
        self.logvar = logvar.clamp(-30.0, 20.0)

    @property
    def std(self) -> Tensor:
        """Standard deviation, `(B, C, ...)`."""
        return torch.exp(0.5 * self.logvar)

    def sample(self, noise: Tensor) -> Tensor:
        """`mean + std * noise`, with `noise` standard normal and shaped as the mean."""
        return self.mean + self.std * noise.to(self.mean)

    def kl(self) -> Tensor:
        """KL divergence from the standard normal, in nats, summed per image: `(B,)`."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1.0 - self.logvar).flatten(1).sum(1)
