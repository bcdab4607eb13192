"""What generators by class learn from: the next code of an image, or the noise in its latents."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from reference_impls.layers.diffusion import Table
from reference_impls.layers.precision import at_least_float32

__all__ = ["CLASS_DROPOUT", "NoiseLoss", "next_code_loss", "some_dropped"]

CLASS_DROPOUT = 0.1
"""Share of images that are learned without their class, so that guidance has something to move away from."""
HALF_BIN = 1.0 / 255.0
"""Half of what lies between two of 256 grey levels in [-1, 1]."""
EDGE = 0.999
"""What lies beyond it belongs to the outermost level, which has no end."""
LEAST = 1e-12
"""Of a probability, before its logarithm."""


def some_dropped(labels: Tensor, dropped: int, share: float, generator: torch.Generator) -> Tensor:
    """Labels `(B,)`, each with probability `share` replaced by `dropped` (classifier-free guidance, arXiv 2207.12598).

    Random numbers come from a CPU `generator`.
    """
    gone = torch.rand(len(labels), generator=generator) < share
    return labels.masked_fill(gone.to(labels.device), dropped)


def next_code_loss(predict: Callable[[Tensor, Tensor], Tensor], codes: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of every code `(B, L)` given those before it, a scalar (LlamaGen, arXiv 2406.06525, sec. 2.2).

    `predict` gives logits `(B, 1 + n, K)` for codes `(B, n)` and labels: of the first code, and of the one behind each.
    """
    logits = at_least_float32(predict(codes[:, :-1], labels))
    return functional.cross_entropy(logits.flatten(0, 1), codes.flatten())


class NoiseLoss:
    """The hybrid loss of a network that predicts noise and its variance (Improved DDPM, arXiv 2102.09672, section 4).

    That is the mean squared error of the noise, and the variational bound, from which only the variance learns. The
    bound is in bits per number, of one step at a time and unweighted, as DiT's release adds it.

    Args:
        betas: Variances of the training steps, `(T,)`.
    """

    def __init__(self, betas: Table) -> None:
        kept = np.cumprod(1.0 - betas)
        before = np.append(1.0, kept[:-1])
        least = betas * (1.0 - before) / (1.0 - kept)
        least[0] = least[1]  # it is 0, and has no logarithm
        tables = {
            "kept": kept,
            "mean_of_clean": betas * np.sqrt(before) / (1.0 - kept),
            "mean_of_noisy": (1.0 - before) * np.sqrt(1.0 - betas) / (1.0 - kept),
            "least_log": np.log(least),
            "most_log": np.log(betas),
        }
        self.steps = len(betas)
        self._tables = {name: torch.from_numpy(table) for name, table in tables.items()}

    def __call__(
        self, network: Callable[[Tensor, Tensor], Tensor], clean: Tensor, times: Tensor, noise: Tensor
    ) -> Tensor:
        """The loss of every image `(B,)`.

        Args:
            network: Noisy latents `(B, C, S, S)` and steps `(B,)` to noise, then variance, `(B, 2C, S, S)`.
            clean: Latents `(B, C, S, S)`.
            times: The training step of each, int64 `(B,)` from 0 on.
            noise: Standard normal, shaped as the latents.
        """
        noisy = self.noisy(clean, times, noise)
        predicted, place = at_least_float32(network(noisy, times)).chunk(2, dim=1)
        simple = (predicted - noise).square().flatten(1).mean(1)
        return simple + self.bound(clean, noisy, times, predicted.detach(), place)

    def noisy(self, clean: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """Latents with as much noise as there is at `times` (DDPM, arXiv 2006.11239, eq. 4)."""
        kept = self._at("kept", times, clean)
        return kept.sqrt() * clean + (1.0 - kept).sqrt() * noise

    def bound(self, clean: Tensor, noisy: Tensor, times: Tensor, predicted: Tensor, place: Tensor) -> Tensor:
        """The variational bound's term of one step, in bits per number, `(B,)` (DDPM, eq. 5).

        A divergence of the predicted from the true distribution of the step before; at step 0 there is none before,
        and the likelihood of the latents takes its place, as if they were pixels in [-1, 1] of 256 levels.
        """
        kept, least = self._at("kept", times, clean), self._at("least_log", times, clean)
        fraction = (place + 1.0) / 2.0
        log_variance = fraction * self._at("most_log", times, clean) + (1.0 - fraction) * least
        guessed = (noisy - (1.0 - kept).sqrt() * predicted) / kept.sqrt()
        true, mean = (
            self._at("mean_of_clean", times, clean) * image + self._at("mean_of_noisy", times, clean) * noisy
            for image in (clean, guessed)
        )
        divergence = 0.5 * (
            log_variance - least - 1.0 + (least - log_variance).exp() + (true - mean).square() * (-log_variance).exp()
        )
        first = (times == 0).reshape(-1, *[1] * (clean.dim() - 1))
        terms = torch.where(first, -_log_likelihood(clean, mean, log_variance), divergence)
        return terms.flatten(1).mean(1) / math.log(2.0)

    def _at(self, name: str, times: Tensor, like: Tensor) -> Tensor:
        """A table's numbers at `times`, to be multiplied with tensors shaped as `like`."""
        found = self._tables[name].to(like.device)[times].to(like.dtype)
        return found.reshape(-1, *[1] * (like.dim() - 1))


def _log_likelihood(values: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log-probability of the level of each value under a Gaussian (DDPM, eq. 13)."""
    scale = torch.exp(-0.5 * log_variance)
    # The release approximates this function by a hyperbolic tangent.
    above, below = (torch.special.ndtr((values - mean + side) * scale) for side in (HALF_BIN, -HALF_BIN))
    inside = torch.where(values > EDGE, 1.0 - below, above - below)
    return torch.where(values < -EDGE, above, inside).clamp(min=LEAST).log()
