"""ATC: in three blocks, merge patches by agglomerative clustering of their keys."""

from dataclasses import dataclass, replace

from torch import Tensor, nn

from reference_impls.layers.agglomeration import ATC, Clustering, Linkage, agglomerate, check_linkage
from reference_impls.layers.matching import cosines
from reference_impls.layers.reduction import TokenState
from reference_impls.layers.sampler_hook import Merging, Place, Seen, attach
from reference_impls.layers.sampler_merging import SamplerHook, clustered, merges_of
from reference_impls.layers.stages import KEEP_RATE, Stages, stage_schedule, stage_targets
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BudgetError, DiffusionReducerMethod, Knob, Variant


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


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """How many clusters are left in a sampler's blocks, and what the distance of two clusters is."""

    ratio: float = 0.5
    """Merged away in a block, as a fraction of its tokens: int(tokens * ratio) of them."""
    linkage: Linkage = "average"
    max_downsample: int = 1
    """Blocks whose map is more times smaller than the network's finest are left alone."""

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1 or self.max_downsample < 1:
            raise BudgetError(
                f"ratio {self.ratio} must be 0 or more and below 1, max_downsample {self.max_downsample} at least 1"
            )
        check_linkage(self.linkage)


class ClusteredAttention(SamplerHook):
    """In every block, alike tokens are clustered for attention, and its output goes to all of a cluster.

    As the paper's image synthesis has it, in the place of ToMe's matching: by the tokens that enter the block, with
    plain means. It runs on the CPU, image by image.
    """

    def __init__(self, settings: SamplerSettings) -> None:
        super().__init__()
        self.settings = settings

    def merge(self, x: Tensor, place: Place) -> Merging | None:
        """Cluster the tokens that enter the block."""
        r = merges_of(self.settings.ratio, place, self.settings.max_downsample)
        if not r:
            return None
        left, distances = place.tokens - r, 1 - cosines(x, x)
        labels = agglomerate(distances, left, self.settings.linkage) if not x.is_meta else distances.argmin(dim=2)
        return clustered(labels, left)

    def seen(self, place: Place, step: int, steps: int) -> Seen:
        """The same at every step."""
        del step, steps
        r = merges_of(self.settings.ratio, place, self.settings.max_downsample)
        return Seen(place.tokens - r, place.tokens - r, place.tokens**2 * place.width if r else 0)


def in_sampler(network: nn.Module, settings: SamplerSettings) -> nn.Module:
    """The network with tokens clustered around its attention.

    Raises:
        UnsupportedBackboneError: it has no block that is known.
    """
    return attach(network, ClusteredAttention(settings))


_IN_CLASSIFIER = reducer(
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
METHOD = replace(
    _IN_CLASSIFIER,
    in_sampler=DiffusionReducerMethod(
        id=_IN_CLASSIFIER.id,
        title=_IN_CLASSIFIER.title,
        idea="In every block, merge alike tokens bottom-up into clusters for attention alone, and undo it.",
        paper=_IN_CLASSIFIER.paper,
        settings=SamplerSettings,
        reduce=in_sampler,
        acts="every block of the finest map, around attention",
        knob=Knob("ratio", (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)),
    ),
)
