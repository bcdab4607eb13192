"""Number types: what must not be computed in half precision."""

import torch
from torch import Tensor

__all__ = ["at_least_float32"]


def at_least_float32(values: Tensor) -> Tensor:
    """`values` in float32, or in float64 where they are that already."""
    return values if values.dtype == torch.float64 else values.float()
