"""ATC in every block, without training: agglomerative clustering in place of ToMe's matching."""

from dataclasses import dataclass

from reference_impls.layers.agglomeration import ATC, Clustering, Linkage
from reference_impls.layers.per_block import PerBlock, removed_per_block
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BlockTokens, BudgetError, Knob


@dataclass(frozen=True, slots=True)
class AtcEveryLayerSettings(PerBlock):
    """How many tokens each block merges away, and what the distance of two clusters is."""

    linkage: Linkage = "average"
    proportional: bool = True
    """Whether a cluster attracts attention as its tokens would; its size weighs its mean in any case."""
    one_less: bool = True
    """Whether a block that is asked for r removes r - 1, as in the release, which counts the class token among the
    clusters and then adds it; r = 1 only orders the tokens anew. The schedule says what is really removed."""


class ClusteringInEveryBlock(Clustering):
    """Agglomerative clustering of head-averaged keys after the attention residual of every block."""

    def __init__(self, backbone: Backbone, settings: AtcEveryLayerSettings) -> None:
        self.asked = removed_per_block(settings, backbone.depth)
        super().__init__(backbone, _schedule(backbone, self.asked, one_less=settings.one_less), settings.linkage)
        self.proportional = settings.proportional

    def clusters_in(self, block: int) -> bool:
        """Wherever a token was asked for: the order of the clusters decides ties later on."""
        return self.asked[block] > 0


def _schedule(backbone: Backbone, asked: tuple[int, ...], *, one_less: bool) -> tuple[BlockTokens, ...]:
    schedule, tokens = [], backbone.tokens
    for block, r in enumerate(asked):
        left = tokens - max(0, r - one_less)
        if left <= backbone.prefix:
            raise BudgetError(
                f"block {block} has {tokens - backbone.prefix} patches, of which one must stay: it cannot remove"
                f" {tokens - left}; ask for fewer tokens per block"
            )
        schedule.append(BlockTokens(attention=tokens, mlp=left))
        tokens = left
    return tuple(schedule)


METHOD = reducer(
    ClusteringInEveryBlock,
    id="atc-every-layer",
    title="ATC in every block",
    idea="In every block, merge patches bottom-up into clusters of alike keys, until r tokens fewer are left.",
    acts="every block, after attention",
    paper=ATC,
    settings=AtcEveryLayerSettings,
    knob=Knob("r", "count"),
)
