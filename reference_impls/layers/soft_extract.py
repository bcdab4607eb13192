"""How many tokens each block should keep, learned by soft extraction (PoWER-BERT, arXiv 2001.08950).

Between the attention and the MLP of a block the patches are ranked by significance, the attention that they receive
over all heads and queries, and the one of rank k is multiplied by the block's k-th retention, a parameter from 0 to 1
that starts at 1. A block's retentions sum to its mass. Training lessens the task's loss plus a weight times the sum
over blocks of j mass_j (j from 1), the masses, rounded up, are the counts. Token Pooling takes its counts from this
search. Read from accounts of both papers; that counts never rise from block to block, that prefix tokens are no part of
it and that the last block has no retentions (nothing is pooled after it) are readings.
"""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from reference_impls.layers.reduction import Reduction, TokenState
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_backbone import Backbone, inspect_backbone
from reference_impls.layers.vit_driver import ReducedViT

__all__ = ["SoftExtract", "search_counts"]


class SoftExtract(Reduction):
    """Multiplies the patches of every block but the last by learned retentions, by rank of significance."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone, backbone.unreduced())
        self.retention = nn.Parameter(torch.ones(backbone.depth - 1, backbone.patches))

    def needs_rows(self, block: int) -> bool:
        """Every block but the last shows its whole attention matrix."""
        return block < len(self.retention)

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Scale each patch by the retention of its rank; of equal significances the earlier patch ranks first."""
        if not self.needs_rows(block):
            return state
        order = seen.received()[:, self.prefix :].detach().argsort(dim=1, descending=True, stable=True)
        kept = torch.ones_like(state.x[..., 0])
        values = self.retention[block].to(kept).expand(len(kept), -1)
        return replace(state, x=state.x * kept.scatter(1, order + self.prefix, values)[..., None])

    def masses(self) -> Tensor:
        """How many patches each block retains, `(depth - 1,)`."""
        return self.retention.sum(dim=1)

    def penalty(self) -> Tensor:
        """The sum over blocks of j times the mass, j from 1: what is saved in late blocks counts for more."""
        return (self.masses() * torch.arange(1, len(self.retention) + 1, device=self.retention.device)).sum()

    def counts(self) -> tuple[int, ...]:
        """Patches to keep after each block but the last: masses rounded up, none above the one before or below 1."""
        rounded = (max(1, math.ceil(mass)) for mass in self.masses().tolist())
        return tuple(accumulate(rounded, min))


def search_counts(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    weight: float,
    retention_lr: float = 1e-2,
    model_lr: float = 0.0,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
) -> tuple[int, ...]:
    """Train retentions on `batches` of images and labels, and give the counts for `TokenPoolingSettings.kept`.

    A greater `weight` of the penalty keeps fewer. With `model_lr` above 0 the model is trained along, as PoWER-BERT's
    is; a copy of it in any case. Both learn by Adam.

    Raises:
        UnsupportedBackboneError: the reducers' driver does not serve `model`.
    """
    backbone = inspect_backbone(copy.deepcopy(model))
    sample = next(model.parameters())
    soft = ReducedViT(backbone, SoftExtract(backbone).to(sample.device, sample.dtype))
    found = soft.reduction
    assert isinstance(found, SoftExtract)  # noqa: S101  for the type
    groups = [{"params": [found.retention], "lr": retention_lr}]
    backbone.model.requires_grad_(model_lr > 0)
    if model_lr > 0:
        groups.append({"params": list(backbone.model.parameters()), "lr": model_lr})
    optimiser = torch.optim.Adam(groups)
    for images, labels in batches:
        optimiser.zero_grad()
        (loss(soft(images), labels) + weight * found.penalty()).backward()
        optimiser.step()
        with torch.no_grad():
            found.retention.clamp_(0.0, 1.0)
    return found.counts()
