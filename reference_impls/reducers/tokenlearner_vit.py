"""TokenLearner in a vision transformer that is there already: before one block, patches become a few learned tokens.

The module is the authors' v1.1. Their own networks have neither class token nor any training without the module; here
prefix tokens pass it by, and the weights of the module have to be trained with the model.
"""

from dataclasses import dataclass

import torch

from reference_impls.layers.reduction import Reduction, TokenState, remake, with_prefix
from reference_impls.layers.token_learner import BOTTLENECK, TokenLearnerV11
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BlockTokens, BudgetError, Knob, Paper


@dataclass(frozen=True, slots=True)
class TokenLearnerSettings:
    """How many tokens are learned, and before which block."""

    tokens: int = 16
    """Learned tokens that stand for all patches."""
    block: int = 9
    """0-based; from it on only prefix tokens and learned ones are left."""


class LearnedTokens(Reduction):
    """Weighted sums of the patches, whose weights an MLP gives to every patch, softmaxed over the patches."""

    makes_tokens = True

    def __init__(self, backbone: Backbone, settings: TokenLearnerSettings) -> None:
        if not 0 <= settings.block < backbone.depth:
            raise BudgetError(f"block {settings.block} must be 0 to {backbone.depth - 1}, this model's blocks")
        if not 1 <= settings.tokens <= backbone.patches:
            raise BudgetError(f"tokens {settings.tokens} must be 1 to {backbone.patches}, this model's patches")
        left = BlockTokens(backbone.prefix + settings.tokens, backbone.prefix + settings.tokens)
        whole = backbone.unreduced()
        super().__init__(backbone, whole[: settings.block] + (left,) * (backbone.depth - settings.block))
        self.block, self.tokens = settings.block, settings.tokens
        self.width, self.patches = backbone.width, backbone.patches
        self.learner = TokenLearnerV11(backbone.width, settings.tokens)

    @property
    def extra_macs(self) -> int:
        """The MLP on every patch, and the weighted sums."""
        return self.patches * (BOTTLENECK * (self.width + self.tokens) + self.tokens * self.width)

    def before_block(self, block: int, state: TokenState) -> TokenState:
        """Put the learned tokens in the place of the patches; a patch is followed to the one that it weighs most in."""
        if block != self.block:
            return state
        first, patches = state.x[:, : self.prefix], state.x[:, self.prefix :]
        goes_to = None
        if state.source is not None:
            goes_to = with_prefix(self.learner.maps(patches).argmax(dim=1), self.prefix)
        return remake(state, torch.cat((first, self.learner(patches)), dim=1), goes_to)


METHOD = reducer(
    LearnedTokens,
    id="tokenlearner-vit",
    title="TokenLearner v1.1 (on a ViT)",
    idea="Before one block, replace all patches by a few weighted sums of them, whose weights are learned.",
    acts="before 1 block",
    paper=Paper(
        title="TokenLearner: What Can 8 Learned Tokens Do for Images and Videos?",
        authors="Michael S. Ryoo, AJ Piergiovanni, Anurag Arnab, Mostafa Dehghani, Anelia Angelova",
        year=2021,
        url="https://arxiv.org/abs/2106.11297",
    ),
    settings=TokenLearnerSettings,
    knob=Knob("tokens", (64, 32, 16, 8, 4)),
    trained=True,
)
