"""Zero-TPrune: drop patches that attention's graph finds unimportant, or that resemble a more important one; untrained.

No release: read from the paper's abstract, its project page and accounts of it (arXiv 2305.17328). A pruning layer
stands between blocks, and acts on the attention and the keys of the block before it in three stages. I': one round of
voting, s <- A^T s / N, ranks the tokens. S: the less important half and the more important one are compared by the
cosine of their keys, and of the less important ones those go that resemble another most. I: voting goes on among the
survivors (weighted PageRank), and the most important stay. Heads are joined by the root of their mean square (EIR),
those whose scores' variance is outside [0.01, 0.7] are left out (VHF), and the class token starts sqrt(N) times larger.
What the paper's accounts leave open, and what was taken:

- places: after the first block, each quarter but the last, and the last block but one (0, 2, 5, 8, 10 of 12);
- counts: stage I keeps 1, 0.9, 0.8, 0.7, 1 of its patches, stage S drops 10 in each layer. That is 3.117 GMAC on
  DeiT-S, 0.678 of the model; the paper's ablations print 3.08 of 4.55, 0.677. For another cost all drops are scaled by
  one factor (`macs_rate`, pruning's own MACs included), where stage S drops no more than its half. `LADDER` meets the
  paper's -a, -b and -c;
- rounds: 30 in the first quarter of the blocks, 1 in the last, 5 between;
- the division by N is left out, for 50 rounds of it underflow; a head's scores are divided by their mean over patches,
  and to that scale the variances are read. Where no head passes, all count;
- the survivors' rows of attention are divided by their sums, tokens dropped by S do not return, the order is kept;
- keys are averaged over heads. A model without a class token starts uniform.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reference_impls.layers.attention_graph import among, joined, page_rank, unlike
from reference_impls.layers.macs_target import Schedule, after_blocks, dearest_within
from reference_impls.layers.matching import head_mean_keys
from reference_impls.layers.reduction import Reduction, TokenState, select, with_prefix
from reference_impls.layers.stages import check_blocks
from reference_impls.layers.vit_attention import Attended, wide
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BudgetError, Knob, Paper


@dataclass(frozen=True, slots=True)
class ZeroTPruneSettings:
    """How many patches go in which pruning layer, and how long they vote."""

    macs_rate: float | None = 0.648
    """What the reduced model costs, pruning included, as a share of the unreduced one's MACs: `keep` and `similar` are
    scaled for it. None: they stand as they are."""
    keep: tuple[float, ...] = (1.0, 0.9, 0.8, 0.7, 1.0)
    """Share of its patches that stage I of each pruning layer keeps."""
    similar: int = 10
    """Patches that stage S of each pruning layer drops."""
    blocks: tuple[int, ...] | None = None
    """0-based blocks that a pruning layer follows; None: where the module says, for a model of any depth."""
    rounds: tuple[int, int, int] = (30, 5, 1)
    """Rounds of voting in stage I: in the first quarter of the blocks, between, and in the last quarter."""
    class_boost: bool = True
    """Whether the class token starts larger; the paper's "-uni" does without."""
    variance: tuple[float, float] = (0.01, 0.7)
    """Within which a head's scores must vary to count."""


LADDER: Mapping[str, ZeroTPruneSettings] = {
    "a": ZeroTPruneSettings(macs_rate=0.648),
    "b": ZeroTPruneSettings(macs_rate=0.546),
    "c": ZeroTPruneSettings(macs_rate=0.867),
}
"""The paper's three configurations, by what the model costs on DeiT-S: 2.97, 2.50 and 3.97 GMAC. Pruning adds 0.01."""

Counts = dict[int, tuple[int, int]]
"""For each block that a pruning layer follows, the patches that stages S and I leave."""


class ZeroTPrune(Reduction):
    """Drops patches between blocks, by what the block before shows of its attention and keys."""

    def __init__(self, backbone: Backbone, settings: ZeroTPruneSettings) -> None:
        counts = _counts(backbone, settings)
        super().__init__(backbone, _schedule(backbone, counts))
        self.counts, self.settings = counts, settings
        self.rounds = {block: _rounds(backbone, settings, block) for block in counts}
        self.extra = _own_macs(backbone, settings, counts)
        self.boost = settings.class_boost and backbone.has_class_token

    @property
    def extra_macs(self) -> int:
        """The votes of stages I' and I and the similarities of stage S."""
        return self.extra

    def needs_rows(self, block: int) -> bool:
        """A block that a pruning layer follows shows its whole attention matrix."""
        return block in self.counts

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Choose the patches that go on after the block."""
        if block not in self.counts:
            return state
        rows = seen.all_rows().detach()
        rows, (similar, important) = rows.to(wide(rows)), self.counts[block]
        present = state.x.shape[1] - self.prefix
        kept = torch.arange(present, device=rows.device).expand(len(rows), -1)
        if similar < present:
            kept = unlike(self._scores(rows, 1), head_mean_keys(seen.keys)[:, self.prefix :], present - similar)
            rows = among(rows, with_prefix(kept, self.prefix))
        if important < similar:
            best = self._scores(rows, self.rounds[block]).argsort(dim=1, descending=True, stable=True)[:, :important]
            kept = kept.gather(1, best.sort(dim=1).values)
        return replace(state, carried=(kept,))

    def after_block(self, block: int, state: TokenState) -> TokenState:
        """Drop the others, in the order of the image."""
        del block
        if not state.carried:
            return state
        return replace(select(state, with_prefix(state.carried[0], self.prefix)), carried=())

    def _scores(self, rows: Tensor, rounds: int) -> Tensor:
        """The importance of every patch `(B, P)` by the attention `rows` `(B, heads, N, N)`."""
        start = torch.ones_like(rows[:, :, :1])
        if self.boost:
            start[..., 0] = rows.shape[2] ** 0.5
        return joined(page_rank(rows, start, rounds)[:, :, self.prefix :], self.settings.variance)


def _layers(settings: ZeroTPruneSettings, backbone: Backbone) -> dict[int, float]:
    """The share that stage I keeps after each block that a pruning layer follows."""
    depth, layers = backbone.depth, dict[int, float]()
    usual = tuple(max(0, each) for each in (0, depth // 4 - 1, depth // 2 - 1, depth * 3 // 4 - 1, depth - 2))
    blocks = usual if settings.blocks is None else settings.blocks
    if settings.blocks is not None:
        check_blocks(backbone, settings.blocks)
    if len(blocks) != len(settings.keep) or not all(0 < keep <= 1 for keep in settings.keep) or settings.similar < 0:
        raise BudgetError(
            f"keep {settings.keep} must be {len(blocks)} shares, one per pruning layer, above 0 and not above 1, and "
            f"similar {settings.similar} not negative"
        )
    if min(settings.rounds) < 1:
        raise BudgetError(f"rounds {settings.rounds} must each be 1 or more")
    for block, keep in zip(blocks, settings.keep, strict=True):
        layers[block] = layers.get(block, 1.0) * keep  # blocks of a shallow model coincide
    return layers


def _counts(backbone: Backbone, settings: ZeroTPruneSettings) -> Counts:
    """What the settings ask for, or what they ask for scaled to a cost.

    Raises:
        BudgetError: settings that do not fit together or this model, or a cost that cannot be met.
    """
    layers = _layers(settings, backbone)
    if settings.macs_rate is None:
        counts = _scaled(backbone, layers, settings.similar, 1.0)
        present = backbone.patches
        for block, (similar, important) in counts.items():
            if present - similar < settings.similar or important < 1:
                raise BudgetError(
                    f"similar {settings.similar} and keep {settings.keep} ask too much of {present} patches after block"
                    f" {block}: stage S can drop half of them, and one must stay"
                )
            present = important
        return counts
    least = min(layers.values())
    most = 1 / (1 - least) if least < 1 else backbone.patches / max(settings.similar, 1)

    def made(strength: float) -> Counts:
        found = _scaled(backbone, layers, settings.similar, strength * most)
        return {block: (similar, max(1, important)) for block, (similar, important) in found.items()}

    return made(
        dearest_within(
            settings.macs_rate,
            backbone,
            make=lambda strength: _schedule(backbone, made(strength)),
            extra=lambda strength: _own_macs(backbone, settings, made(strength)),
        )
    )


def _scaled(backbone: Backbone, layers: dict[int, float], similar: int, factor: float) -> Counts:
    """The counts when every share dropped, and the number dropped by stage S, is `factor` times as great."""
    counts, present = Counts(), backbone.patches
    for layer, (block, keep) in enumerate(sorted(layers.items())):
        # Whole numbers, dealt so that the layers together drop what they should; a thousandth forgives rounding.
        asked = int(similar * factor * (layer + 1) + 1e-3) - int(similar * factor * layer + 1e-3)
        unlike_ones = present - min(asked, present // 2)
        present = int(unlike_ones * max(0.0, 1 - (1 - keep) * factor) + 1e-3)
        counts[block] = (unlike_ones, present)
    return counts


def _schedule(backbone: Backbone, counts: Counts) -> Schedule:
    return after_blocks(backbone, {block: important for block, (_, important) in counts.items()})


def _rounds(backbone: Backbone, settings: ZeroTPruneSettings, block: int) -> int:
    quarter, depth = backbone.depth / 4, backbone.depth
    return settings.rounds[0 if block < quarter else 2 if block >= depth - quarter else 1]


def _own_macs(backbone: Backbone, settings: ZeroTPruneSettings, counts: Counts) -> int:
    total, present, prefix = 0, backbone.patches, backbone.prefix
    for block, (similar, important) in counts.items():
        width = backbone.blocks[block].head_width
        heads = backbone.blocks[block].cost.pairs // (2 * width)
        if similar < present:
            total += heads * (present + prefix) ** 2 + (present // 2) * (present - present // 2) * width
        if important < similar:
            total += _rounds(backbone, settings, block) * heads * (similar + prefix) ** 2
        present = important
    return total


METHOD = reducer(
    ZeroTPrune,
    id="zero-tprune",
    title="Zero-TPrune",
    idea="Between blocks, drop patches that resemble a more important one, then those to which attention votes least.",
    acts="after 5 blocks",
    paper=Paper(
        title="Zero-TPrune: Zero-Shot Token Pruning through Leveraging of the Attention Graph in Pre-Trained "
        "Transformers",
        authors="Wang, Dedhia, Jha",
        year=2024,
        url="https://arxiv.org/abs/2305.17328",
    ),
    settings=ZeroTPruneSettings,
    knob=Knob("macs_rate", "rate"),
)
