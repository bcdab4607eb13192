"""Number types: what must not be computed in half precision."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["at_least_float32", "without_autocast"]


def at_least_float32(values: Tensor) -> Tensor:
    """`values` in float32, or in float64 where they are that already."""
    return values if values.dtype == torch.float64 else values.float()


def without_autocast(values: Tensor) -> AbstractContextManager[None]:
    """Where `values` are multiplied in their own type, whatever autocast says."""
    kind = values.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
