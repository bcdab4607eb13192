"""Selecting patches once, in one block: what the selection rules of vision-language models share.

Those systems prune the tokens that leave a vision encoder, before a language model. Here the same rule prunes inside
a classifier: after the attention of one block, so that the blocks behind it run on fewer tokens.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace

from torch import Tensor

from reference_impls.layers.reduction import Reduction, TokenState, select, with_prefix
from reference_impls.layers.stages import stage_schedule, stage_targets
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_backbone import Backbone
from tokenmark.contracts import BudgetError

__all__ = ["ONCE", "SingleStage", "SingleStageSelection", "best", "class_attention"]

ONCE = "1 block, after attention"


@dataclass(frozen=True, slots=True)
class SingleStage:
    """How many patches are left, and where the others go."""

    keep_rate: float = 0.5
    """Share of the patches that stay: int(patches * keep_rate) of them."""
    block: int | None = None
    """0-based block that prunes; None: two thirds of the way, block depth * 2 // 3."""


class SingleStageSelection(Reduction):
    """Keeps, after the attention of one block, the patches that a rule chooses; they stay in their order."""

    def __init__(self, backbone: Backbone, settings: SingleStage) -> None:
        block = backbone.depth * 2 // 3 if settings.block is None else settings.block
        if not 0 <= block < backbone.depth:
            raise BudgetError(f"block {block} must lie within 0 to {backbone.depth - 1}, this model's blocks")
        keep = self.count(backbone, settings)
        super().__init__(backbone, stage_schedule(backbone, {block: keep}, "after_attention"))
        self.block, self.keep, self.patches, self.grid = block, keep, backbone.patches, backbone.grid

    def count(self, backbone: Backbone, settings: SingleStage) -> int:
        """How many patches the settings keep.

        Raises:
            BudgetError: a rate outside (0, 1], or none at all.
        """
        return stage_targets(backbone, settings.keep_rate, (0,))[0]

    @property
    def prunes(self) -> bool:
        """Whether any patch goes."""
        return self.keep < self.patches

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Keep what the rule chooses."""
        if block != self.block or not self.prunes:
            return state
        chosen = self.choose(state, seen).sort(dim=1).values
        return replace(select(state, with_prefix(chosen, self.prefix)), score=None)

    @abstractmethod
    def choose(self, state: TokenState, seen: Attended) -> Tensor:
        """Which patches stay, `(B, keep)` int64, each once, in any order; patch 0 comes right after the prefix."""


def best(score: Tensor, count: int) -> Tensor:
    """Indices `(B, count)` of the highest of `score` `(B, N)`, in falling order; of equal ones the earlier first."""
    return score.detach().argsort(dim=1, descending=True, stable=True)[:, :count]


def class_attention(seen: Attended, prefix: int) -> Tensor:
    """The attention that the class token pays to every patch, averaged over heads: `(B, patches)`."""
    return seen.class_row().mean(dim=1)[:, prefix:]
