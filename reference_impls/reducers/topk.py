"""Top-K: in three blocks, keep the patches that the class token attends to most, and drop the others."""

from dataclasses import dataclass

from torch import nn

from reference_impls.layers.reduction import Reduction, TokenState, select, with_prefix
from reference_impls.layers.stages import stage_schedule, stage_targets
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_backbone import AttentionKind, Backbone, inspect_backbone
from reference_impls.layers.vit_driver import ReducedViT
from tokenmark.contracts import Paper, ReducerMethod, UnsupportedBackboneError


@dataclass(frozen=True, slots=True)
class TopKSettings:
    """How many patches are left after each stage."""

    keep_rate: float | tuple[float, ...] = 0.7
    """Kept per stage, so stage s leaves int(patches * keep_rate ** s); or one fraction of all patches per stage."""
    blocks: tuple[int, ...] = (3, 6, 9)
    """0-based blocks that drop tokens, after their attention."""


class TopKByClassAttention(Reduction):
    """Ranks patches by the class token's attention in the reducing block itself, averaged over heads."""

    def __init__(self, backbone: Backbone, settings: TopKSettings) -> None:
        targets = stage_targets(backbone, settings.keep_rate, settings.blocks)
        super().__init__(stage_schedule(backbone, targets, "after_attention"))
        self.prefix = backbone.prefix

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Keep the best patches, in falling score; of equal ones the earlier."""
        count = self.schedule[block].mlp
        if count == self.schedule[block].attention:
            return state
        score = seen.class_row().mean(dim=1)[:, self.prefix :]
        best = score.argsort(dim=1, descending=True, stable=True)[:, : count - self.prefix]
        return select(state, with_prefix(best, self.prefix))


def build(model: nn.Module, settings: TopKSettings, *, attention: AttentionKind = "fused") -> ReducedViT:
    """Reduce a timm vision transformer with a class token by class attention; prefix tokens always stay.

    Raises:
        UnsupportedBackboneError: the driver does not serve `model`, or it has no class token.
        BudgetError: impossible rates or blocks (see `stage_targets`).
    """
    backbone = inspect_backbone(model, attention)
    if not backbone.has_class_token:
        raise UnsupportedBackboneError(
            "topk ranks patches by the class token's attention: this model has no class token"
        )
    return ReducedViT(backbone, TopKByClassAttention(backbone, settings), attention)


METHOD = ReducerMethod(
    id="topk",
    title="Top-K by class attention",
    idea="In three blocks, keep the patches that the class token attends to most and drop the others.",
    paper=Paper(
        title="Which Tokens to Use? Investigating Token Reduction in Vision Transformers",
        authors="Haurum, Escalera, Taylor, Moeslund",
        year=2023,
        url="https://arxiv.org/abs/2308.04657",
    ),
    settings=TopKSettings,
    build=build,
)
