"""ToMe: in every block, merge the r tokens whose keys are the most similar to another's."""

from dataclasses import dataclass

from torch import nn

from reference_impls.layers.matching import bipartite_soft_matching, head_mean_keys, most_merges
from reference_impls.layers.reduction import Reduction, TokenState, merge
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_backbone import AttentionKind, Backbone, inspect_backbone
from reference_impls.layers.vit_driver import ReducedViT
from tokenmark.contracts import BlockTokens, BudgetError, Paper, ReducerMethod


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


class TokenMerging(Reduction):
    """Bipartite soft matching of head-averaged keys after the attention residual of every block."""

    def __init__(self, backbone: Backbone, settings: TomeSettings) -> None:
        super().__init__(_schedule(backbone, settings))
        self.prefix = backbone.prefix
        self.proportional = settings.proportional

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Merge what the schedule says."""
        r = self.schedule[block].attention - self.schedule[block].mlp
        if r == 0:
            return state
        return merge(state, bipartite_soft_matching(head_mean_keys(seen.keys), r, self.prefix))


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


def build(model: nn.Module, settings: TomeSettings, *, attention: AttentionKind = "fused") -> ReducedViT:
    """Reduce a timm vision transformer by ToMe; needs no training.

    Prefix tokens (class, distillation, registers) are never merged. Keys are taken after qk-norm, where there is one.
    An r that a block cannot merge is clipped as in the release; the schedule shows it.

    Raises:
        UnsupportedBackboneError: the driver does not serve `model`.
        BudgetError: negative r, an inflection beyond [-1, 1], more entries in `per_block` than blocks.
    """
    backbone = inspect_backbone(model, attention)
    return ReducedViT(backbone, TokenMerging(backbone, settings), attention)


METHOD = ReducerMethod(
    id="tome",
    title="ToMe",
    idea="In every block, merge the r tokens whose keys are most similar to another token's, weighing by size.",
    paper=Paper(
        title="Token Merging: Your ViT But Faster",
        authors="Bolya, Fu, Dai, Zhang, Feichtenhofer, Hoffman",
        year=2023,
        url="https://arxiv.org/abs/2210.09461",
    ),
    settings=TomeSettings,
    build=build,
)
