"""Pruning by DynamicViT's predictors: a hard cut in evaluation; in training masks that let gradients through.

Rao et al., "DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification", NeurIPS 2021, section 3.
"""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, pad

from reference_impls.layers.families.base import BlockView
from reference_impls.layers.reduction import TokenState, select, with_prefix
from reference_impls.layers.stages import StagedReduction, Stages
from reference_impls.layers.token_predictor import TokenPredictor, decide, policy_softmax, ratio_loss
from reference_impls.layers.vit_attention import Attended, attention_logits, project
from reference_impls.layers.vit_backbone import AttentionKind, Backbone

__all__ = ["PredictedPruning"]


class PredictedPruning(StagedReduction):
    """Before each stage's block a predictor scores the patches.

    In evaluation the best ones are kept, in falling score. In training every token stays; which of them others may see
    is drawn, and `ratio_loss` draws the shares that are kept to their targets.
    """

    where = "before_block"
    mean_eps: ClassVar[float] = 0.0
    """What the predictors add to their mean."""

    def __init__(self, backbone: Backbone, settings: Stages) -> None:
        super().__init__(backbone, settings)
        self.score_predictor = nn.ModuleList(TokenPredictor(backbone.width, eps=self.mean_eps) for _ in settings.blocks)
        rate, stages = settings.keep_rate, range(1, len(settings.blocks) + 1)
        self.ratios = rate if isinstance(rate, tuple) else tuple(rate**stage for stage in stages)
        self.decisions: tuple[Tensor, ...] = ()
        """Of the last training pass, one `(B, patches)` per stage that prunes; 1 for kept patches, else 0."""

    @property
    def extra_macs(self) -> int:
        """The predictors, for every patch that arrives."""
        stages = [block for block in self.stages if self.shrinks_before(block)]
        return sum((self.arriving(block) - self.prefix) * self._predictor(block).macs for block in stages)

    def before_block(self, block: int, state: TokenState) -> TokenState:
        """Prune what the schedule says, or in training decide what others no longer see."""
        if not self.shrinks_before(block):
            return state
        patches, predictor = state.x[:, self.prefix :], self._predictor(block)
        if self.training:
            before = state.carried[-1] if state.carried else torch.ones_like(patches[..., 0])
            return replace(state, carried=(*state.carried, decide(predictor(patches, before), before)))
        kept = self.schedule[block].attention - self.prefix
        score = predictor(patches)[..., 0].detach()
        best = score.argsort(dim=1, descending=True, stable=True)[:, :kept]
        return select(state, with_prefix(best, self.prefix))

    def attend(
        self, block: int, view: BlockView, state: TokenState, kind: AttentionKind
    ) -> tuple[TokenState, Attended]:
        """Run the attention of `block`; in training under the mask of what was decided."""
        if not state.carried:
            return super().attend(block, view, state, kind)
        attention, x, looks = view.attention, view.norm1(state.x), state.looks(block, proportional=False)
        q, k, v = project(attention, x, looks)
        logits = attention_logits(q, k, attention.scale, None, looks.bias)
        rows = policy_softmax(logits, pad(state.carried[-1], (self.prefix, 0), value=1.0)).to(v.dtype)
        out = attention.join(dropout(rows, attention.dropout, attention.dropout > 0.0) @ v, x)
        seen = Attended(q, k, v, attention.scale, None, rows, looks.bias)
        return replace(state, x=state.x + view.residual1(out)), seen

    def head(self, backbone: Backbone, state: TokenState) -> Tensor:
        """The model's output; of a training pass the mean over patches is of the kept ones, as in evaluation."""
        if not self.training:
            return super().head(backbone, state)
        self.decisions = state.carried
        if not state.carried:
            return super().head(backbone, state)
        # Where chance dropped every patch there must be no division by zero.
        return backbone.head(state.x, pad(state.carried[-1] + 1e-6, (self.prefix, 0), value=1.0))

    def ratio_loss(self) -> Tensor:
        """The loss on the kept shares of the last training pass (section 3.4); the paper weighs it by 2.

        Raises:
            MethodError: there was no training pass, or no stage prunes.
        """
        targets = [rate for block, rate in zip(self.stages, self.ratios, strict=True) if self.shrinks_before(block)]
        return ratio_loss(self.decisions, targets)

    def _predictor(self, block: int) -> TokenPredictor:
        found = self.score_predictor[self.stages[block]]
        assert isinstance(found, TokenPredictor)  # noqa: S101  for the type
        return found
