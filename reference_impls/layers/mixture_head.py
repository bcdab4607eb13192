"""A mixture of Gaussians for every position, whose means have a low rank (CLaM-TTS, arXiv 2404.02781, section 3.2)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.precision import at_least_float32, without_autocast

__all__ = ["Mixture", "MixtureHead"]

MOST_LOG_SCALE = 7.0
"""What the logarithms of scales are held between, with both signs."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """Of every position: z = shift + scale y, where y is Gaussian with variance 1 around a component's mean."""

    logits: Tensor
    """Of the components, `(B, L, K)`."""
    factors: Tensor
    """What the means are made of, `(B, L, R)`."""
    shift: Tensor
    """`(B, L, C)`."""
    log_scale: Tensor
    """`(B, L, C)`."""


class MixtureHead(nn.Module):
    """From features to mixtures.

    Args:
        width: Channels of the features, D.
        components: Their number, K.
        rank: Of what makes the means, R.
        channels: Channels of z, C.
    """

    def __init__(self, width: int, components: int, rank: int, channels: int) -> None:
        super().__init__()
        self.sizes = [components, rank, channels, channels]
        self.proj = nn.Linear(width, sum(self.sizes))
        self.bases = nn.Parameter(torch.randn(components, channels, rank) * rank**-0.5)
        self.centres = nn.Parameter(torch.randn(components, channels))

    def forward(self, features: Tensor) -> Mixture:
        """Mixtures of features `(B, L, D)`, in float32 at least."""
        logits, factors, shift, log_scale = at_least_float32(self.proj(features)).split(self.sizes, dim=-1)
        return Mixture(logits, factors, shift, log_scale.clamp(-MOST_LOG_SCALE, MOST_LOG_SCALE))

    def mean_of(self, mixture: Mixture, components: Tensor) -> Tensor:
        """Of one component for each position, int64 `(B, L)`: the mean of y, `(B, L, C)`."""
        with without_autocast(mixture.factors):
            bases, centres = at_least_float32(self.bases)[components], at_least_float32(self.centres)[components]
            return (bases @ mixture.factors.unsqueeze(-1)).squeeze(-1) + centres

    def log_densities(self, mixture: Mixture, z: Tensor) -> Tensor:
        """The log p(z | component) of `z` `(B, L, C)` under every component: `(B, L, K)`."""
        with without_autocast(z):
            bases, centres = at_least_float32(self.bases), at_least_float32(self.centres)
            means = functional.linear(mixture.factors, bases.flatten(0, 1), centres.flatten())
            y = (z - mixture.shift) * torch.exp(-mixture.log_scale)
            squared = (y.unsqueeze(-2) - means.unflatten(-1, centres.shape)).square().sum(-1)
            volume = mixture.log_scale.sum(-1, keepdim=True) + 0.5 * z.shape[-1] * math.log(2 * math.pi)
            densities: Tensor = -0.5 * squared - volume
        return densities

    def negative_log_likelihood(self, mixture: Mixture, z: Tensor) -> Tensor:
        """-log p(z) of `z` `(B, L, C)`: `(B, L)`."""
        return -(mixture.logits.log_softmax(-1) + self.log_densities(mixture, z)).logsumexp(-1)

    def bound(self, mixture: Mixture, z: Tensor) -> Tensor:
        """What is trained, `(B, L)`: never below -log p(z), and split into a classification and a regression.

        With q the components' shares in z if all were equally likely, which is not trained: the divergence of the
        mixture's weights from q, and the mean of -log p(z | component) under q.
        """
        densities = self.log_densities(mixture, z)
        shares = densities.detach().log_softmax(-1)
        classification = (shares.exp() * (shares - mixture.logits.log_softmax(-1))).sum(-1)
        regression = -(shares.exp() * densities).sum(-1)
        return classification + regression
