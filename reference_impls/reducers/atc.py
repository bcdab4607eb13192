"""ATC: in three blocks, merge patches by agglomerative clustering of their keys."""

from dataclasses import dataclass, replace

from reference_impls.layers.agglomeration import ATC, Clustering, Linkage
from reference_impls.layers.reduction import TokenState
from reference_impls.layers.stages import KEEP_RATE, Stages, stage_schedule, stage_targets
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import Variant


@dataclass(frozen=True, slots=True)
class AtcSettings(Stages):
    """How many clusters are left at each stage, and what the distance of two clusters is."""

    linkage: Linkage = "average"
    proportional: bool = True
    """Whether a cluster attracts attention as its tokens would. Where not, its size is forgotten after the block, so
    that it weighs one in the next clustering, as in the release."""


class StagedClustering(Clustering):
    """Agglomerative clustering of head-averaged keys in a few blocks."""

    def __init__(self, backbone: Backbone, settings: AtcSettings) -> None:
        targets = stage_targets(backbone, settings.keep_rate, settings.blocks)
        super().__init__(backbone, stage_schedule(backbone, targets, "after_attention"), settings.linkage)
        self.proportional = settings.proportional

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Cluster what the schedule says."""
        state = super().after_attention(block, state, seen)
        return state if self.proportional else replace(state, size=None)


METHOD = reducer(
    StagedClustering,
    id="atc",
    title="ATC",
    idea="In three blocks, merge patches bottom-up into clusters of alike keys, until the keep rate is reached.",
    acts="3 blocks, after attention",
    paper=ATC,
    settings=AtcSettings,
    knob=KEEP_RATE,
    variants={
        f"deit-{size}-kr{percent}": Variant(
            config={"model": f"deit_{size}_patch16_224.fb_in1k", "settings": {"keep_rate": percent / 100}},
            note="the authors keep it on the Hugging Face hub, in joakimbh/ATC",
        )
        for size in ("tiny", "small", "base")
        for percent in (90, 70, 50, 25)
    },
)
