"""One code per number: levels spread as a normal distribution is (TokenBridge, arXiv 2503.16430)."""

import math

import torch
from torch import Tensor, nn

__all__ = ["GaussianLevels"]

LIMIT = 3.0
"""Standard deviations at which the outermost intervals end."""


class GaussianLevels(nn.Module):
    """Every number to the nearest of K levels, each the mean of a standard normal within one of K likely intervals.

    Args:
        count: Number of levels, K.
        reach: Numbers from `-reach` to `reach` are spread over plus and minus three standard deviations; what lies
            outside is taken to the outermost level.
        saved: Keep both tables in the state dict, in float32, as the release's generator does.
    """

    reconstruction_values: Tensor
    """The levels `(K,)`, in standard deviations."""
    boundaries: Tensor
    """Of the intervals, `(K + 1,)`; nothing is computed from them later on."""

    def __init__(self, count: int, reach: float = 5.0, *, saved: bool = False) -> None:
        super().__init__()
        self.reach = reach
        edges = torch.special.ndtri(torch.linspace(0, 1, count + 1, dtype=torch.float64)).clamp(-LIMIT, LIMIT)
        density = torch.exp(-0.5 * edges.square()) / math.sqrt(2 * math.pi)
        shares = (0.5 * (1 + torch.erf(edges / math.sqrt(2)))).diff()
        # Quirk of the release: beyond the limit, intervals are empty and their level is 0 (from about 750 levels on).
        levels = (density[:-1] - density[1:]) / shares.masked_fill(shares == 0, 1e-10)
        # In float64 where they are no checkpoint's, so that they are exact in whatever type the images have.
        number_type = torch.float32 if saved else torch.float64
        self.register_buffer("reconstruction_values", levels.to(number_type), persistent=saved)
        self.register_buffer("boundaries", edges.to(number_type), persistent=saved)

    def codes(self, numbers: Tensor) -> Tensor:
        """The level nearest to each of `numbers` `(...)`, and not the one whose interval it is in; int64 `(...)`.

        Ties go to the lowest index.
        """
        scaled = ((numbers + self.reach) / (2 * self.reach) * (2 * LIMIT) - LIMIT).clamp(-LIMIT, LIMIT)
        return (scaled.unsqueeze(-1) - self.reconstruction_values.to(numbers)).abs().argmin(-1)

    def values(self, codes: Tensor) -> Tensor:
        """What `codes` stand for, in the type of the table: the same shape."""
        table = (self.reconstruction_values + LIMIT) / (2 * LIMIT) * (2 * self.reach) - self.reach
        return table[codes]
