"""ToMe: in every block, merge the r tokens whose keys are the most similar to another's."""

from dataclasses import dataclass

from reference_impls.layers.matching import KeyMatching, most_merges
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BlockTokens, BudgetError, Knob, Paper


@dataclass(frozen=True, slots=True)
class TomeSettings:
    """How many tokens each block merges away."""

    r: int = 8
    """Tokens merged per block, on average over the blocks."""
    inflection: float = 0.0
    """-1 to 1: the first block merges r * (1 - inflection), the last r * (1 + inflection), linear between (each
    truncated). Negative merges more in early blocks; 0 is constant."""
    per_block: tuple[int, ...] | None = None
    """Tokens merged in each block, in place of `r` and `inflection`; blocks beyond it merge none."""
    proportional: bool = True
    """Whether a token of size s attracts attention as s tokens would; the release turns it off for MAE models."""


class TokenMerging(KeyMatching):
    """Bipartite soft matching of head-averaged keys after the attention residual of every block."""

    def __init__(self, backbone: Backbone, settings: TomeSettings) -> None:
        super().__init__(backbone, _schedule(backbone, settings))
        self.proportional = settings.proportional


def merges_per_block(settings: TomeSettings, depth: int) -> tuple[int, ...]:
    """What the settings ask of every block, before any clipping.

    Raises:
        BudgetError: a negative number, an inflection beyond [-1, 1], or more numbers than blocks.
    """
    if settings.per_block is not None:
        if len(settings.per_block) > depth or min(settings.per_block, default=0) < 0:
            raise BudgetError(f"per_block {settings.per_block} must be at most {depth} numbers, none below 0")
        return settings.per_block + (0,) * (depth - len(settings.per_block))
    if settings.r < 0 or not -1 <= settings.inflection <= 1:
        raise BudgetError(f"r {settings.r} must not be negative, inflection {settings.inflection} be from -1 to 1")
    first = int(settings.r * (1 - settings.inflection))
    step = (2 * settings.r - 2 * first) / max(1, depth - 1)
    return tuple(int(first + step * block) for block in range(depth))


def _schedule(backbone: Backbone, settings: TomeSettings) -> tuple[BlockTokens, ...]:
    """The counts, with the release's clip: no block merges more than half of its unprotected tokens."""
    schedule, tokens = [], backbone.tokens
    for r in merges_per_block(settings, backbone.depth):
        left = tokens - min(r, most_merges(tokens, backbone.prefix))
        schedule.append(BlockTokens(attention=tokens, mlp=left))
        tokens = left
    return tuple(schedule)


METHOD = reducer(
    TokenMerging,
    id="tome",
    title="ToMe",
    idea="In every block, merge the r tokens whose keys are most similar to another token's, weighing by size.",
    acts="every block, after attention",
    paper=Paper(
        title="Token Merging: Your ViT But Faster",
        authors="Bolya, Fu, Dai, Zhang, Feichtenhofer, Hoffman",
        year=2023,
        url="https://arxiv.org/abs/2210.09461",
    ),
    settings=TomeSettings,
    knob=Knob("r", "count"),
)
