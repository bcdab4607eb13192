"""ToMe at 3-6-9: ToMe's matching in three blocks only, down to a keep rate; not the algorithm of ToMe's paper."""

from dataclasses import dataclass

from torch import nn

from reference_impls.layers.matching import bipartite_soft_matching, head_mean_keys, most_merges
from reference_impls.layers.reduction import Reduction, TokenState, merge
from reference_impls.layers.stages import stage_targets
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_backbone import AttentionKind, Backbone, inspect_backbone
from reference_impls.layers.vit_driver import ReducedViT
from tokenmark.contracts import BlockTokens, BudgetError, Paper, ReducerMethod


@dataclass(frozen=True, slots=True)
class Tome3StageSettings:
    """How many tokens are left after each stage."""

    keep_rate: float | tuple[float, ...] = 0.7
    """Kept per stage, so stage s leaves int(patches * keep_rate ** s); or one fraction of all patches per stage."""
    blocks: tuple[int, ...] = (3, 6, 9)
    """0-based blocks that merge, after their attention."""
    allow_clip: bool = False
    """Whether to leave more tokens than asked where one matching cannot merge as many, as the release does silently."""


class StagedTokenMerging(Reduction):
    """Bipartite soft matching of head-averaged keys in a few blocks, with proportional attention from then on."""

    proportional = True

    def __init__(self, backbone: Backbone, settings: Tome3StageSettings) -> None:
        super().__init__(_schedule(backbone, settings))
        self.prefix = backbone.prefix

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Merge what the schedule says."""
        r = self.schedule[block].attention - self.schedule[block].mlp
        if r == 0:
            return state
        return merge(state, bipartite_soft_matching(head_mean_keys(seen.keys), r, self.prefix))


def _schedule(backbone: Backbone, settings: Tome3StageSettings) -> tuple[BlockTokens, ...]:
    """The counts: each stage asks for the difference of two targets, and may be clipped to half of its tokens."""
    targets = stage_targets(backbone, settings.keep_rate, settings.blocks)
    schedule, tokens, target = [], backbone.tokens, backbone.patches
    for block in range(backbone.depth):
        r = target - targets.get(block, target)
        left = tokens - min(r, most_merges(tokens, backbone.prefix))
        target -= r
        schedule.append(BlockTokens(attention=tokens, mlp=left))
        tokens = left
    got = [schedule[block].mlp - backbone.prefix for block in settings.blocks]
    if got != list(targets.values()) and not settings.allow_clip:
        raise BudgetError(
            f"a matching merges at most half of the tokens: keep_rate {settings.keep_rate} would leave {got} patches, "
            f"not {list(targets.values())}; raise it, or set allow_clip to do as the release does"
        )
    return tuple(schedule)


def build(model: nn.Module, settings: Tome3StageSettings, *, attention: AttentionKind = "fused") -> ReducedViT:
    """Reduce a timm vision transformer by ToMe's matching in a few blocks; prefix tokens are never merged.

    Raises:
        UnsupportedBackboneError: the driver does not serve `model`.
        BudgetError: impossible rates or blocks (see `stage_targets`), or a budget that would be clipped.
    """
    backbone = inspect_backbone(model, attention)
    return ReducedViT(backbone, StagedTokenMerging(backbone, settings), attention)


METHOD = ReducerMethod(
    id="tome-3stage",
    title="ToMe at 3-6-9",
    idea="In three blocks, merge tokens by ToMe's matching of keys until the keep rate of the stage is reached.",
    paper=Paper(
        title="Which Tokens to Use? Investigating Token Reduction in Vision Transformers",
        authors="Haurum, Escalera, Taylor, Moeslund",
        year=2023,
        url="https://arxiv.org/abs/2308.04657",
    ),
    settings=Tome3StageSettings,
    build=build,
)
