"""FoPru's rule: once, keep the patches, or the whole rows of patches, that receive the most attention.

Read: the paper's abstract, and a summary of its three steps: a significance of every token from the encoder's
attention; pruning by rank (the best tokens of the whole image) or by row (connected pieces); the kept tokens in their
original order. The formulas were not at hand. Readings: a token's significance is the attention that it receives,
averaged over heads and over all queries, in the pruning block; a row's is the sum of its tokens', and the best rows
stay whole. So `keep_rate` counts rows under `row`: int(rows * keep_rate) of them.

This is the selection rule alone, inside a vision encoder; not the vision-language system.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from reference_impls.layers.reduction import TokenState
from reference_impls.layers.single_stage import ONCE, SingleStage, SingleStageSelection, best
from reference_impls.layers.stages import KEEP_RATE
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BudgetError, Paper


@dataclass(frozen=True, slots=True)
class FoPruSettings(SingleStage):
    """How many patches are left, where, and whether single ones or rows are kept."""

    strategy: Literal["rank", "row"] = "rank"


class FoPruRule(SingleStageSelection):
    """Ranks patches, or rows of them, by the attention that they receive in the pruning block."""

    def __init__(self, backbone: Backbone, settings: FoPruSettings) -> None:
        if settings.strategy not in ("rank", "row"):
            raise BudgetError(f"strategy '{settings.strategy}' must be rank or row")
        self.rows = settings.strategy == "row"
        super().__init__(backbone, settings)

    def count(self, backbone: Backbone, settings: SingleStage) -> int:
        """Patches that stay; under `row` those of whole rows."""
        patches = super().count(backbone, settings)
        rows, columns = backbone.grid
        if not self.rows:
            return patches
        kept = int(rows * settings.keep_rate)
        if kept < 1:
            raise BudgetError(
                f"keep_rate {settings.keep_rate} keeps no whole row of {rows}: the least that fits is {1 / rows:.3f}"
            )
        return kept * columns

    def needs_rows(self, block: int) -> bool:
        """The pruning block shows its whole attention matrix."""
        return self.prunes and block == self.block

    def choose(self, state: TokenState, seen: Attended) -> Tensor:
        """The best patches, or all patches of the best rows."""
        del state
        score = seen.received()[:, self.prefix :]
        if not self.rows:
            return best(score, self.keep)
        columns = self.grid[1]
        rows = best(score.unflatten(1, self.grid).sum(dim=2), self.keep // columns)
        return (rows[..., None] * columns + torch.arange(columns, device=score.device)).flatten(1)


METHOD = reducer(
    FoPruRule,
    id="select-fopru",
    title="FoPru's selection",
    idea="Once, keep the patches, or the whole rows of patches, that receive the most attention.",
    acts=ONCE,
    paper=Paper(
        title="FoPru: Focal Pruning for Efficient Large Vision-Language Models",
        authors="Jiang, Huang, Liu, Zeng, Li, Cheng, Xu",
        year=2024,
        url="https://arxiv.org/abs/2411.14164",
    ),
    settings=FoPruSettings,
    knob=KEEP_RATE,
)
