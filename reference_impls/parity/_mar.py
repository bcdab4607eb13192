"""How the recorded noise of MAR's samplers, and of those after it, becomes what they ask for."""

import torch
from torch import Tensor

__all__ = ["as_uniform", "gaussian"]


def gaussian(uniform: Tensor) -> Tensor:
    """Standard normal numbers of uniform ones in [-1, 1)."""
    inside = 1.0 - 2.0**-53
    found: Tensor = 2.0**0.5 * torch.special.erfinv(uniform.clamp(-inside, inside))
    return found


def as_uniform(orders: Tensor) -> Tensor:
    """Numbers in [0, 1) that sort into `orders` `(B, N)`."""
    ranks = torch.arange(orders.shape[1], dtype=torch.float64) / orders.shape[1]
    return torch.zeros(orders.shape, dtype=torch.float64).scatter(1, orders, ranks.expand(orders.shape))
