"""Random drop: in three blocks, keep patches chosen by a seed alone: what any scored reduction should beat."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reference_impls.layers.reduction import Reduction, TokenState, select, with_prefix
from reference_impls.layers.stages import stage_schedule, stage_targets
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_backbone import AttentionKind, Backbone, inspect_backbone
from reference_impls.layers.vit_driver import ReducedViT
from tokenmark.contracts import Paper, ReducerMethod


@dataclass(frozen=True, slots=True)
class RandomDropSettings:
    """How many patches are left after each stage, and the seed that chooses them."""

    keep_rate: float | tuple[float, ...] = 0.7
    """Kept per stage, so stage s leaves int(patches * keep_rate ** s); or one fraction of all patches per stage."""
    blocks: tuple[int, ...] = (3, 6, 9)
    """0-based blocks that drop tokens, after their attention."""
    seed: int = 0


class RandomDrop(Reduction):
    """One random choice of positions per stage, drawn once when the model is built, and the same for every image."""

    def __init__(self, backbone: Backbone, settings: RandomDropSettings) -> None:
        targets = stage_targets(backbone, settings.keep_rate, settings.blocks)
        super().__init__(stage_schedule(backbone, targets, "after_attention"))
        generator = torch.Generator().manual_seed(settings.seed)
        present = backbone.patches
        for block, count in targets.items():
            chosen = torch.randperm(present, generator=generator)[:count].sort().values[None]
            # A buffer follows the model to its device; not saved, as the state dict holds the model's own keys only.
            self.register_buffer(f"kept{block}", with_prefix(chosen, backbone.prefix), persistent=False)
            present = count

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Keep the chosen positions, in their order."""
        del seen
        if self.schedule[block].mlp == self.schedule[block].attention:
            return state
        kept: Tensor = self.get_buffer(f"kept{block}")
        return select(state, kept.expand(state.x.shape[0], -1))


def build(model: nn.Module, settings: RandomDropSettings, *, attention: AttentionKind = "fused") -> ReducedViT:
    """Drop random patches of a timm vision transformer; prefix tokens always stay.

    The choice depends on the seed and the counts, not on the image or the batch: one permutation per stage from a CPU
    generator. It acts where Top-K acts, so that the two cost the same.

    Raises:
        UnsupportedBackboneError: the driver does not serve `model`.
        BudgetError: impossible rates or blocks (see `stage_targets`).
    """
    backbone = inspect_backbone(model, attention)
    reduction = RandomDrop(backbone, settings).to(backbone.vit.patch_embed.proj.weight.device)
    return ReducedViT(backbone, reduction, attention)


METHOD = ReducerMethod(
    id="random-drop",
    title="Random drop",
    idea="In three blocks, keep patches at positions drawn once from a seed: the baseline of no score at all.",
    paper=Paper(
        title="PatchDropout: Economizing Vision Transformers Using Patch Dropout",
        authors="Liu, Matsoukas, Strand, Azizpour, Smith",
        year=2023,
        url="https://arxiv.org/abs/2208.07220",
    ),
    settings=RandomDropSettings,
    build=build,
)
