"""torch's own multi-head attention in pieces."""

from typing import Any, cast

from torch import Tensor
from torch.nn.functional import linear

from reference_impls.layers.families.base import AttentionView
from reference_impls.layers.families.timm_vit import heads_of

__all__ = ["TorchAttention"]


class TorchAttention(AttentionView):
    """torch's `MultiheadAttention`, batch first, queries, keys and values from one matrix."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.scale = module.head_dim**-0.5

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One matrix gives q, k and v, in this order, heads inside."""
        return heads_of(linear(x, self.module.in_proj_weight, self.module.in_proj_bias), self.module.num_heads)

    def join(self, mixed: Tensor, x: Tensor) -> Tensor:
        """The projection."""
        del x
        return cast("Tensor", self.module.out_proj(mixed.transpose(1, 2).flatten(2)))

    @property
    def dropout(self) -> float:
        """Torch's dropout on attention weights."""
        return float(self.module.dropout) if self.module.training else 0.0
