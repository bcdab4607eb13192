"""ATS as Haurum et al. run it: in three blocks, sample patches at even steps of their scores' running sum.

Not the algorithm of the authors of ATS: the sum runs over the patches in image order, and one that scores high takes
several steps, so that images keep different numbers of patches. Rows that are left over are copies of the class token,
barred from every attention.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reference_impls.layers.families.base import BlockView
from reference_impls.layers.padding import head_of_live, refuse_attention_pooling
from reference_impls.layers.reduction import TokenState, select
from reference_impls.layers.stages import HAURUM, KEEP_RATE, StagedReduction, Stages, haurum_variants
from reference_impls.layers.vit_attention import Attended, attend, wide
from reference_impls.layers.vit_backbone import AttentionKind, Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BlockTokens


@dataclass(frozen=True, slots=True)
class AtsHaurumSettings(Stages):
    """How many steps each stage takes, one more than the patches that the rate names: the most that it can keep."""

    trim: bool = False
    """Whether to cut the rows that no image of the batch needs, as the release does. The shapes then depend on the
    images, which the host must wait for; the live tokens are the same."""


class InverseTransformSampling(StagedReduction):
    """Scores patches by the class token's attention times the norm of their values, head by head."""

    needs_class_token = True
    adaptive = True

    def __init__(self, backbone: Backbone, settings: AtsHaurumSettings) -> None:
        super().__init__(backbone, settings)
        refuse_attention_pooling(backbone, "ats-haurum")
        self.steps = {block: self.schedule[block].mlp - self.prefix + 1 for block in settings.blocks}
        self.trim = settings.trim
        schedule, tokens = [], backbone.tokens
        for block in range(backbone.depth):
            left = min(tokens, self.prefix + samples(self.steps[block])) if block in self.steps else tokens
            schedule.append(BlockTokens(attention=tokens, mlp=left))
            tokens = left
        self.schedule = tuple(schedule)

    def alive(self, state: TokenState) -> Tensor:
        """How many tokens of each image are not there to fill up."""
        return state.carried[0].sum(dim=1) if state.carried else super().alive(state)

    def attend(
        self, block: int, view: BlockView, state: TokenState, kind: AttentionKind
    ) -> tuple[TokenState, Attended]:
        """Run the attention of `block`; nobody sees the rows that fill up, and they see all alike."""
        looks = state.looks(block, proportional=False)
        if state.carried:
            alive = state.carried[0]
            pairs = alive[:, None, :, None] & alive[:, None, None, :]
            barred = torch.zeros_like(pairs, dtype=state.x.dtype).masked_fill(~pairs, _lowest(state.x))
            looks = replace(looks, bias=barred if looks.bias is None else looks.bias + barred)
        out, seen = attend(view.attention, view.norm1(state.x), looks, kind)
        return replace(state, x=state.x + view.residual1(out)), seen

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Keep the sampled patches, in image order."""
        if block not in self.steps:
            return state
        norms = seen.values.to(wide(seen.values)).norm(dim=-1)
        score = (seen.class_row() * norms).sum(dim=1)[:, self.prefix :].detach()
        dead = ~state.carried[0][:, self.prefix :] if state.carried else None
        picked = sampled(score, self.steps[block], dead)
        kept = torch.cat((torch.ones_like(picked[:, :1]).expand(-1, self.prefix), picked), dim=1)
        left = self.schedule[block].mlp
        index = (~kept).int().argsort(dim=1, stable=True)[:, :left]
        alive = kept.gather(1, index)
        if self.trim:
            longest = max(self.prefix + 1, int(alive.any(dim=0).sum()))
            index, alive = index[:, :longest], alive[:, :longest]
        goes_to = torch.where(kept, kept.cumsum(dim=1) - 1, -1)
        return replace(select(state, index.masked_fill(~alive, 0), goes_to), carried=(alive,))

    def head(self, backbone: Backbone, state: TokenState) -> Tensor:
        """The model's output, of the live tokens alone."""
        return head_of_live(backbone, state, state.carried[0]) if state.carried else super().head(backbone, state)


def samples(steps: int) -> int:
    """How many samples fit into `steps`: one less, or for some (3, 7, 12, ...) as many by the release's rounding."""
    return math.ceil(((2 * steps - 1) / (2 * steps) - 1 / (2 * steps)) / (2 / (2 * steps)))


def sampled(score: Tensor, steps: int, dead: Tensor | None = None) -> Tensor:
    """Which patches are sampled, `(B, N)` bool, by their `score` `(B, N)`; those that are `dead` `(B, N)` are not.

    Each sample (1/2, 3/2, ... of a step) takes the patch whose share of the running sum is nearest; of equal ones the
    first.
    """
    running = (score / (score.sum(dim=1, keepdim=True) + 1e-6)).cumsum(dim=1)
    if dead is not None:
        running = running + 0.1 * dead
    at = (2 * torch.arange(samples(steps), device=score.device).to(score.dtype) + 1) / (2 * steps)
    nearest = (running[:, :, None] - at).abs().argmin(dim=1)
    return torch.zeros_like(score, dtype=torch.bool).scatter(1, nearest, value=True)


def _lowest(x: Tensor) -> float:
    """A number so low in the type of attention that it bars a key, but not below all that the type can add to it."""
    kind = x.device.type
    autocast = torch.is_autocast_enabled(kind)
    return torch.finfo(torch.get_autocast_dtype(kind) if autocast else x.dtype).min / 2


METHOD = reducer(
    InverseTransformSampling,
    id="ats-haurum",
    title="ATS (Haurum et al.)",
    idea="In three blocks, sample patches by inverse transform of class attention times value norm, in image order.",
    acts="3 blocks, after attention",
    paper=HAURUM,
    settings=AtsHaurumSettings,
    knob=KEEP_RATE,
    variants=haurum_variants(),
)
