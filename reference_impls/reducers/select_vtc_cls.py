"""VTC-CLS's rule: once, keep the patches that the class token attends to most over several blocks together.

Read: the paper's abstract, and a summary that says that the class token's attention is aggregated over K layers to
keep the top U tokens. A reading: aggregated is the mean over heads and over K blocks in a row, the last of which
prunes. A choice: K = 3, and every block weighs the same.

This is the selection rule alone, inside a vision encoder; not the vision-language system.
"""

from dataclasses import dataclass, replace
from typing import cast

from torch import Tensor

from reference_impls.layers.reduction import TokenState
from reference_impls.layers.single_stage import ONCE, SingleStage, SingleStageSelection, best, class_attention
from reference_impls.layers.stages import KEEP_RATE
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BudgetError, Paper


@dataclass(frozen=True, slots=True)
class VtcClsSettings(SingleStage):
    """How many patches are left, where, and how many blocks are asked."""

    layers: int = 3
    """Blocks whose class attention counts: the pruning one and those right before it."""


class VtcClsRule(SingleStageSelection):
    """Ranks patches by the class token's attention, summed over the pruning block and some before it."""

    needs_class_token = True

    def __init__(self, backbone: Backbone, settings: VtcClsSettings) -> None:
        super().__init__(backbone, settings)
        if not 1 <= settings.layers <= self.block + 1:
            raise BudgetError(
                f"layers {settings.layers} must lie within 1 to {self.block + 1}, the blocks up to block {self.block}"
            )
        self.first = self.block + 1 - settings.layers

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Add this block's class attention, then keep the best where the last one was added."""
        if not self.prunes or not self.first <= block <= self.block:
            return state
        score = class_attention(seen, self.prefix)
        state = replace(state, score=score if state.score is None else state.score + score)
        return super().after_attention(block, state, seen)

    def choose(self, state: TokenState, seen: Attended) -> Tensor:
        """The best by the sum."""
        del seen
        return best(cast("Tensor", state.score), self.keep)


METHOD = reducer(
    VtcClsRule,
    id="select-vtc-cls",
    title="VTC-CLS's selection",
    idea="Once, keep the patches that the class token attends to most, over several blocks together.",
    acts=ONCE,
    paper=Paper(
        title="[CLS] Token Tells Everything Needed for Training-free Efficient MLLMs",
        authors="Wang, Sun, Chen, Lin, Han, Ding",
        year=2024,
        url="https://arxiv.org/abs/2412.05819",
    ),
    settings=VtcClsSettings,
    knob=KEEP_RATE,
)
