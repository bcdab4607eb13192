"""HiRED's rule: once, give each part of the image a budget by an early block's class attention, and keep its best.

Read: the paper's abstract, a summary of its two phases, and the single-image form in its release (MIT). Phase 1 scores
the visual content of every partition by the class token's attention in an initial layer, and deals the budget in
proportion. Phase 2 keeps in each partition the tokens of the highest class attention, summed over heads, in the final
layer. There the partitions are crops of one high-resolution picture beside a view of the whole; here they are the
cells of a grid laid over the one image, so that there is no share for the whole view, and the final layer is the
pruning block. A choice: shares are rounded by highest averages (Webster), which meet the budget exactly and give no
partition more than it has.

This is the selection rule alone, inside a vision encoder; not the vision-language system.
"""

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from reference_impls.layers.reduction import TokenState
from reference_impls.layers.single_stage import ONCE, SingleStage, SingleStageSelection, best, class_attention
from reference_impls.layers.stages import KEEP_RATE
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BudgetError, Paper


@dataclass(frozen=True, slots=True)
class HiRedSettings(SingleStage):
    """How many patches are left, where, and how the image is divided."""

    partitions: tuple[int, int] = (2, 2)
    """Rows and columns of partitions."""
    content_block: int = 0
    """0-based block whose class attention tells how much there is to see in a partition; not after the pruning one."""


class HiRedRule(SingleStageSelection):
    """Deals the budget to the partitions, then keeps the best patches of each."""

    needs_class_token = True

    def __init__(self, backbone: Backbone, settings: HiRedSettings) -> None:
        super().__init__(backbone, settings)
        if not 0 <= settings.content_block <= self.block:
            raise BudgetError(f"content_block {settings.content_block} must lie within 0 to {self.block}, which prunes")
        if not all(1 <= parts <= side for parts, side in zip(settings.partitions, self.grid, strict=True)):
            raise BudgetError(
                f"partitions {settings.partitions} must be from 1 by 1 to {self.grid[0]} by {self.grid[1]}, the patches"
            )
        self.content_block = settings.content_block
        self.partitions = settings.partitions[0] * settings.partitions[1]
        self.register_buffer("part", partition_of(self.grid, settings.partitions), persistent=False)

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Note the early class attention, and prune where it is time."""
        if self.prunes and block == self.content_block:
            state = replace(state, score=class_attention(seen, self.prefix))
        return super().after_attention(block, state, seen)

    def choose(self, state: TokenState, seen: Attended) -> Tensor:
        """The best of each partition, as many as its budget."""
        early, part = cast("Tensor", state.score), self.get_buffer("part")
        content = early.new_zeros(early.shape[0], self.partitions)
        content = content.scatter_add(1, part.expand_as(early), early.detach())
        return best_per_partition(content, class_attention(seen, self.prefix), part, self.keep)


def partition_of(grid: tuple[int, int], partitions: tuple[int, int]) -> Tensor:
    """The partition that each patch of a grid lies in, `(patches,)` int64; their sides are as even as can be."""
    row, column = (torch.arange(side) * parts // side for side, parts in zip(grid, partitions, strict=True))
    return (row[:, None] * partitions[1] + column).flatten()


def best_per_partition(content: Tensor, score: Tensor, part: Tensor, count: int) -> Tensor:
    """Indices `(B, count)` of the patches of the highest `score` `(B, N)` in each partition `part` `(N,)`.

    How many of each goes by `content` `(B, partitions)`: seats are dealt one by one to the partition of the largest
    content / (2 * seats + 1) that still has a patch (Webster's highest averages).
    """
    order = best(score, score.shape[1])
    tokens = order.gather(1, part[order].argsort(dim=1, stable=True))  # partition by partition, the best ones first
    parts = part.sort().values
    seats = torch.arange(len(part), device=part.device) - torch.searchsorted(parts, parts)
    return tokens.gather(1, best(content[:, parts] / (2 * seats + 1), count))


METHOD = reducer(
    HiRedRule,
    id="select-hired",
    title="HiRED's selection",
    idea="Once, deal the budget to parts of the image by early class attention, and keep each part's best patches.",
    acts=ONCE,
    paper=Paper(
        title="HiRED: Attention-Guided Token Dropping for Efficient Inference of High-Resolution Vision-Language"
        " Models",
        authors="Arif, Yoon, Nikolopoulos, Vandierendonck, John, Ji",
        year=2025,
        url="https://arxiv.org/abs/2408.10945",
    ),
    settings=HiRedSettings,
    knob=KEEP_RATE,
)
