"""Random drop: in three blocks, keep patches chosen by a seed alone: what any scored reduction should beat."""

from dataclasses import dataclass

import torch
from torch import Tensor

from reference_impls.layers.reduction import TokenState, select, with_prefix
from reference_impls.layers.stages import KEEP_RATE, StagedReduction, Stages
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import Paper


@dataclass(frozen=True, slots=True)
class RandomDropSettings(Stages):
    """How many patches are left after each stage, and the seed that chooses them."""

    seed: int = 0


class RandomDrop(StagedReduction):
    """One random choice of positions per stage, drawn once when the model is built, and the same for every image.

    The choice depends on the seed and the counts, not on the image or the batch: one permutation per stage from a CPU
    generator. It acts where Top-K acts, so that the two cost the same.
    """

    def __init__(self, backbone: Backbone, settings: RandomDropSettings) -> None:
        super().__init__(backbone, settings)
        generator = torch.Generator().manual_seed(settings.seed)
        present = backbone.patches
        for block in settings.blocks:
            count = self.schedule[block].mlp - backbone.prefix
            chosen = torch.randperm(present, generator=generator)[:count].sort().values[None]
            # A buffer follows the model to its device; not saved, as the state dict holds the model's own keys only.
            self.register_buffer(f"kept{block}", with_prefix(chosen, backbone.prefix), persistent=False)
            present = count

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Keep the chosen positions, in their order."""
        del seen
        if not self.reduces_in(block):
            return state
        kept: Tensor = self.get_buffer(f"kept{block}")
        return select(state, kept.expand(state.x.shape[0], -1))


METHOD = reducer(
    RandomDrop,
    id="random-drop",
    title="Random drop",
    idea="In three blocks, keep patches at positions drawn once from a seed: the baseline of no score at all.",
    acts="3 blocks, after attention",
    paper=Paper(
        title="PatchDropout: Economizing Vision Transformers Using Patch Dropout",
        authors="Liu, Matsoukas, Strand, Azizpour, Smith",
        year=2023,
        url="https://arxiv.org/abs/2208.07220",
    ),
    settings=RandomDropSettings,
    knob=KEEP_RATE,
)
