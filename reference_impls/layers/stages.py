"""How many patches stay where a method reduces in a few blocks only (Haurum et al., ICCV Workshops 2023)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from reference_impls.layers.reduction import Reduction
from reference_impls.layers.vit_backbone import Backbone
from tokenmark.contracts import BlockTokens, BudgetError, Knob, Paper, Variant

__all__ = [
    "HAURUM",
    "KEEP_RATE",
    "StagedReduction",
    "Stages",
    "check_blocks",
    "haurum_variants",
    "stage_schedule",
    "stage_targets",
]

HAURUM = Paper(
    title="Which Tokens to Use? Investigating Token Reduction in Vision Transformers",
    authors="Haurum, Escalera, Taylor, Moeslund",
    year=2023,
    url="https://arxiv.org/abs/2308.04657",
)
KEEP_RATE = Knob("keep_rate", "rate")


@dataclass(frozen=True, slots=True)
class Stages:
    """How many patches are left after each stage."""

    keep_rate: float | tuple[float, ...] = 0.7
    """Kept per stage, so stage s leaves int(patches * keep_rate ** s); or one fraction of all patches per stage."""
    blocks: tuple[int, ...] = (3, 6, 9)
    """0-based blocks that reduce."""


class StagedReduction(Reduction):
    """A reduction that acts in a few blocks only, down to a number of patches that is known for each."""

    where: ClassVar[Literal["before_block", "after_attention"]] = "after_attention"

    def __init__(self, backbone: Backbone, settings: Stages) -> None:
        targets = stage_targets(backbone, settings.keep_rate, settings.blocks)
        super().__init__(backbone, stage_schedule(backbone, targets, self.where))
        self.tokens = backbone.tokens
        self.stages = {block: stage for stage, block in enumerate(settings.blocks)}

    def arriving(self, block: int) -> int:
        """How many tokens arrive at `block`, before anything is done there."""
        return self.schedule[block - 1].mlp if block else self.tokens

    def shrinks_before(self, block: int) -> bool:
        """Whether fewer tokens enter `block` than arrive at it."""
        return self.schedule[block].attention < self.arriving(block)


def haurum_variants() -> dict[str, Variant]:
    """The models that Haurum et al. fine-tuned with every one of their methods: DeiT at four keep rates."""
    return {
        f"deit-{size}-kr{percent}": Variant(
            config={"model": f"deit_{size}_patch16_224.fb_in1k", "settings": {"keep_rate": percent / 100}},
            note="the authors keep it on the Hugging Face hub, in joakimbh/TokenReduction",
        )
        for size in ("tiny", "small", "base")
        for percent in (90, 70, 50, 25)
    }


def check_blocks(backbone: Backbone, blocks: tuple[int, ...]) -> None:
    """Refuse blocks in which a method cannot act.

    Raises:
        BudgetError: there is none, the model does not have one of them, or they do not rise.
    """
    if not blocks or list(blocks) != sorted(set(blocks)) or blocks[0] < 0 or blocks[-1] >= backbone.depth:
        raise BudgetError(f"blocks {blocks} must rise within 0 to {backbone.depth - 1}, this model's blocks")


def stage_targets(backbone: Backbone, keep_rate: float | tuple[float, ...], blocks: tuple[int, ...]) -> dict[int, int]:
    """For each of `blocks` (0-based, rising) the number of patches to keep: `{block: patches}`.

    A number is the rate per stage: stage s keeps int(patches * keep_rate ** s), s from 1. A tuple gives each stage its
    fraction of the model's own patches. (The release counts from 196 patches, whatever the model.)

    Raises:
        BudgetError: a rate outside (0, 1], more patches than the stage before keeps, no patch at all, blocks that the
            model does not have, that do not rise, or that are not as many as the rates.
    """
    check_blocks(backbone, blocks)
    rates = (
        keep_rate if isinstance(keep_rate, tuple) else tuple(keep_rate**stage for stage in range(1, len(blocks) + 1))
    )
    if len(rates) != len(blocks):
        raise BudgetError(f"keep_rate has {len(rates)} fractions for {len(blocks)} blocks: give one for each")
    given = keep_rate if isinstance(keep_rate, tuple) else (keep_rate,)
    if not all(0 < rate <= 1 for rate in given):
        raise BudgetError(f"keep_rate {keep_rate} must lie above 0 and not above 1")
    kept = [int(backbone.patches * rate) for rate in rates]
    if kept != sorted(kept, reverse=True) or kept[-1] < 1:
        raise BudgetError(
            f"keep_rate {keep_rate} leaves {kept} of {backbone.patches} patches: each stage must keep one "
            "patch or more, and not more than the stage before"
        )
    return dict(zip(blocks, kept, strict=True))


def stage_schedule(
    backbone: Backbone, targets: dict[int, int], where: Literal["before_block", "after_attention"]
) -> tuple[BlockTokens, ...]:
    """The token counts of every block, when `targets` patches are left before it or after its attention."""
    schedule, tokens = [], backbone.tokens
    for block in range(backbone.depth):
        left = backbone.prefix + targets.get(block, tokens - backbone.prefix)
        schedule.append(BlockTokens(attention=left if where == "before_block" else tokens, mlp=left))
        tokens = left
    return tuple(schedule)
