"""ToMe at 3-6-9: ToMe's matching in three blocks only, down to a keep rate; not the algorithm of ToMe's paper."""

from dataclasses import dataclass

from reference_impls.layers.matching import KeyMatching, most_merges
from reference_impls.layers.stages import HAURUM, KEEP_RATE, Stages, stage_targets
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BlockTokens, BudgetError


@dataclass(frozen=True, slots=True)
class Tome3StageSettings(Stages):
    """How many tokens are left after each stage."""

    allow_clip: bool = False
    """Whether to leave more tokens than asked where one matching cannot merge as many, as the release does silently."""


class StagedTokenMerging(KeyMatching):
    """Bipartite soft matching of head-averaged keys in a few blocks, with proportional attention from then on."""

    proportional = True

    def __init__(self, backbone: Backbone, settings: Tome3StageSettings) -> None:
        super().__init__(backbone, _schedule(backbone, settings))


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


METHOD = reducer(
    StagedTokenMerging,
    id="tome-3stage",
    title="ToMe at 3-6-9",
    idea="In three blocks, merge tokens by ToMe's matching of keys until the keep rate of the stage is reached.",
    acts="3 blocks, after attention",
    paper=HAURUM,
    settings=Tome3StageSettings,
    knob=KEEP_RATE,
)
