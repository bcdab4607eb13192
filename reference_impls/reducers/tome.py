"""ToMe: in every block, merge the r tokens whose keys are the most similar to another's."""

from dataclasses import dataclass

from reference_impls.layers.matching import KeyMatching, most_merges
from reference_impls.layers.per_block import PerBlock, removed_per_block
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BlockTokens, Knob, Paper, Variant


@dataclass(frozen=True, slots=True)
class TomeSettings(PerBlock):
    """How many tokens each block merges away."""

    proportional: bool = True
    """Whether a token of size s attracts attention as s tokens would; the release turns it off for MAE models."""


class TokenMerging(KeyMatching):
    """Bipartite soft matching of head-averaged keys after the attention residual of every block."""

    def __init__(self, backbone: Backbone, settings: TomeSettings) -> None:
        super().__init__(backbone, _schedule(backbone, settings))
        self.proportional = settings.proportional


def _schedule(backbone: Backbone, settings: TomeSettings) -> tuple[BlockTokens, ...]:
    """The counts, with the release's clip: no block merges more than half of its unprotected tokens."""
    schedule, tokens = [], backbone.tokens
    for r in removed_per_block(settings, backbone.depth):
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
    variants={
        f"deit-{size}-r13": Variant(
            config={"model": f"deit_{size}_patch16_224.fb_in1k", "settings": {"r": 13}},
            note="trained with merging; the authors link it in the README of facebookresearch/ToMe",
        )
        for size in ("tiny", "small")
    },
)
