"""EViT: in three blocks, keep the patches that the class token attends to most, and fuse the others into one token."""

import math
from dataclasses import dataclass

from reference_impls.layers.class_attention import keep_and_fuse
from reference_impls.layers.reduction import Reduction, TokenState
from reference_impls.layers.stages import KEEP_RATE, check_blocks
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BlockTokens, BudgetError, Layout, Paper, Variant


@dataclass(frozen=True, slots=True)
class EvitSettings:
    """How many patches each stage keeps of those that enter it; the fused token of an earlier stage is one of them."""

    keep_rate: float | tuple[float, ...] = 0.7
    """What every stage keeps, or each of `blocks`: ceil(rate * patches that enter it)."""
    blocks: tuple[int, ...] = (3, 6, 9)
    """0-based blocks that reduce."""
    counts: tuple[int | None, ...] | None = None
    """For each of `blocks` the number of patches to keep in place of its rate, or None: the rate's."""
    fuse: bool = True
    """Whether the dropped patches leave one token behind."""


class InattentiveFusion(Reduction):
    """Ranks patches by the class token's attention in the reducing block itself, averaged over heads (section 3.1)."""

    needs_class_token = True
    makes_tokens = True

    def __init__(self, backbone: Backbone, settings: EvitSettings) -> None:
        kept, schedule, tokens = _kept(backbone, settings), [], backbone.tokens
        for block in range(backbone.depth):
            left = backbone.prefix + kept[block] + settings.fuse if block in kept else tokens
            schedule.append(BlockTokens(attention=tokens, mlp=left))
            tokens = left
        super().__init__(backbone, tuple(schedule))
        self.kept, self.makes_tokens = kept, settings.fuse
        self.width = backbone.width

    @property
    def extra_macs(self) -> int:
        """The sums of dropped patches."""
        entering = sum(self.schedule[block].attention for block in self.kept)
        return entering * self.width if self.makes_tokens else 0

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Keep the best patches, in falling score, of equal ones the earlier; the fused token comes last."""
        if block not in self.kept:
            return state
        score = seen.class_row().mean(dim=1)[:, self.prefix :]
        return keep_and_fuse(state, score, self.kept[block], self.prefix, fuse=self.makes_tokens)


def _kept(backbone: Backbone, settings: EvitSettings) -> dict[int, int]:
    """For each block that really drops something the number of patches that it keeps.

    Raises:
        BudgetError: rates outside (0, 1], counts that are not there, or other numbers of them than of blocks.
    """
    blocks, rates, counts = settings.blocks, settings.keep_rate, settings.counts
    check_blocks(backbone, blocks)
    rates = rates if isinstance(rates, tuple) else (rates,) * len(blocks)
    counts = (None,) * len(blocks) if counts is None else counts
    if not len(rates) == len(counts) == len(blocks):
        raise BudgetError(f"{len(rates)} rates or {len(counts)} counts for {len(blocks)} blocks: give one for each")
    if not all(0 < rate <= 1 for rate in rates):
        raise BudgetError(f"keep_rate {settings.keep_rate} must lie above 0 and not above 1")
    kept, present = {}, backbone.patches
    for block, rate, count in zip(blocks, rates, counts, strict=True):
        left = math.ceil(rate * present) if count is None else count
        if not 1 <= left <= present:
            raise BudgetError(
                f"block {block} cannot keep {left} of the {present} patches that enter it: 1 to {present}"
            )
        if left < present:
            kept[block] = left
            present = left + settings.fuse
    return kept


METHOD = reducer(
    InattentiveFusion,
    id="evit",
    title="EViT",
    idea="In three blocks, keep the patches that the class token attends to most and fuse the others into one token.",
    acts="3 blocks, after attention",
    paper=Paper(
        title="Not All Patches are What You Need: Expediting Vision Transformers via Token Reorganizations",
        authors="Liang, Ge, Tong, Song, Wang, Xie",
        year=2022,
        url="https://arxiv.org/abs/2202.07800",
    ),
    settings=EvitSettings,
    knob=KEEP_RATE,
    variants={
        f"deit-s-{rate}" + ("" if fuse else "-not-fused"): Variant(
            config={"model": "deit_small_patch16_224.fb_in1k", "settings": {"keep_rate": rate, "fuse": fuse}},
            note="on the Google Drive that the README of youweiliang/evit points to",
        )
        for fuse in (True, False)
        for rate in (0.9, 0.8, 0.7, 0.6, 0.5)
    },
    layout=Layout(wrappers=("model",), renames=((r"^", "model."),)),
)
