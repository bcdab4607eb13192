"""DART's rule: once, keep a few pivots and the patches that resemble them least.

Read: the paper's abstract (a small set of pivot tokens, then those of low duplication to the pivots), and how a public
toolkit for compressing vision-language models (LLMC, Apache-2.0) does it: pivots are the tokens of the largest L1 norm
of their keys, over all heads; each pivot in turn keeps an equal share of the tokens, those of least cosine to it that
no pivot before it kept; kept tokens stay in their order. The paper takes 4 pivots from the image and 4 from the text.

Choices: all 8 pivots are patches, as there is no text; they take turns in falling norm, and where the share is uneven
the first ones keep one more, so that the budget is met; cosines are of the tokens after the pruning block's attention.

This is the selection rule alone, inside a vision encoder; not the vision-language system.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impls.layers.matching import cosines
from reference_impls.layers.reduction import TokenState
from reference_impls.layers.single_stage import ONCE, SingleStage, SingleStageSelection, best
from reference_impls.layers.stages import KEEP_RATE
from reference_impls.layers.vit_attention import Attended, wide
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BudgetError, Paper


@dataclass(frozen=True, slots=True)
class DartSettings(SingleStage):
    """How many patches are left, where, and how many of them are pivots."""

    pivots: int = 8
    """At most as many as patches are kept."""


class DartRule(SingleStageSelection):
    """Keeps the pivots and, for each, the patches that duplicate it least."""

    def __init__(self, backbone: Backbone, settings: DartSettings) -> None:
        super().__init__(backbone, settings)
        if not 1 <= settings.pivots <= self.keep:
            raise BudgetError(f"pivots {settings.pivots} must lie within 1 to {self.keep}, the patches that are kept")
        self.pivots, self.width = settings.pivots, backbone.width

    @property
    def extra_macs(self) -> int:
        """The cosines of all patches to the pivots."""
        return self.pivots * self.patches * self.width if self.prunes else 0

    def choose(self, state: TokenState, seen: Attended) -> Tensor:
        """Pivots by the norm of their keys, then the least similar to each."""
        keys = seen.keys[:, :, self.prefix :].detach()
        norms = keys.abs().sum(dim=(1, 3), dtype=wide(keys))
        return pivots_and_unlike(norms, state.x[:, self.prefix :], self.pivots, self.keep)


def pivots_and_unlike(norms: Tensor, x: Tensor, pivots: int, count: int) -> Tensor:
    """Indices `(B, count)`: the `pivots` largest of `norms` `(B, N)`, then for each the tokens of `x` least like it.

    The count - pivots others are dealt evenly to the pivots, the first ones getting what is left over; each takes
    those of least cosine that are not yet taken, of equal ones the earlier. 1 <= pivots <= count <= N.
    """
    chosen = best(norms, pivots)
    similarity = cosines(x.gather(1, chosen[..., None].expand(-1, -1, x.shape[2])), x)
    taken = torch.zeros_like(norms, dtype=torch.bool).scatter(1, chosen, value=True)
    share, over = divmod(count - pivots, pivots)
    for pivot in range(pivots):
        unlike = (-similarity[:, pivot]).masked_fill(taken, -torch.inf)
        more = best(unlike, share + (pivot < over))
        chosen = torch.cat((chosen, more), dim=1)
        taken = taken.scatter(1, more, value=True)
    return chosen


METHOD = reducer(
    DartRule,
    id="select-dart",
    title="DART's selection",
    idea="Once, keep a few pivot patches of the largest keys and the patches that resemble them least.",
    acts=ONCE,
    paper=Paper(
        title='Stop Looking for "Important Tokens" in Multimodal Language Models: Duplication Matters More',
        authors="Wen, Gao, Wang, Zhang, Zhang, Li, He, Zhang",
        year=2025,
        url="https://arxiv.org/abs/2502.11494",
    ),
    settings=DartSettings,
    knob=KEEP_RATE,
)
