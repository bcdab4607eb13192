"""PiToMe: before merging by similarity, set aside the tokens that resemble few others."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import elu

from reference_impls.layers.matching import cosines, head_mean_keys
from reference_impls.layers.reduction import Matching, Reduction, TokenState, merge
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BlockTokens, BudgetError, Knob, Paper


@dataclass(frozen=True, slots=True)
class PitomeSettings:
    """What share of the patches each block keeps, and which blocks protect."""

    ratio: float = 0.95
    """Of the patches that enter a block, the share that leaves it, so that fewer go the deeper the block; 0.5 to 1."""
    margin: float = 0.75
    """From what cosine on two tokens count as alike in the first block; it falls linearly to 0 after the last."""
    protecting: Literal["late", "early"] = "late"
    """Which half of the blocks sets the least redundant tokens aside; the other only orders tokens by redundancy.
    The release: late, and early for MAE models."""
    proportional: bool = False
    """Whether a token of size s attracts attention as s tokens would: the paper says so, the release never does it."""


class SpectrumPreservingMerging(Reduction):
    """Ranks tokens by energy, the mean similarity to all others beyond a margin, and merges those of high energy."""

    def __init__(self, backbone: Backbone, settings: PitomeSettings) -> None:
        super().__init__(backbone, _schedule(backbone, settings))
        depth = backbone.depth
        self.protects = tuple((2 * block >= depth) == (settings.protecting == "late") for block in range(depth))
        self.margins = tuple(settings.margin * (1 - block / depth) for block in range(depth))
        self.proportional = settings.proportional
        self.head_width = backbone.blocks[0].head_width

    @property
    def extra_macs(self) -> int:
        """The similarities of all pairs, in every block that merges."""
        merging = [each.attention - self.prefix for each in self.schedule if each.mlp < each.attention]
        return sum(patches**2 * self.head_width for patches in merging)

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Merge what the schedule says."""
        r = self.schedule[block].attention - self.schedule[block].mlp
        if r == 0:
            return state
        metric = head_mean_keys(seen.keys)
        protect = self.protects[block]
        return merge(state, energy_matching(metric, r, self.prefix, self.margins[block], protect=protect))


def energy_matching(metric: Tensor, r: int, prefix: int, margin: float, *, protect: bool) -> Matching:
    """Merge `r` of the tokens that resemble the most others, by the cosine of `metric` `(B, N, D)`.

    Tokens are ranked by falling energy: the mean over all (itself too) of elu(cosine - margin), section 3. With
    `protect` the 2 r of highest energy are split by the parity of their ranks, and all of the even ones merge; the
    others stay as they are. Without, all tokens are split so, and the r even ones merge that are the most similar to
    an odd one. The first `prefix` tokens take no part and come first in the output; then the tokens that stay (by
    falling energy, or similarity without `protect`), then those that received. 0 < r <= (N - prefix) / 2.
    """
    similarity = cosines(metric[:, prefix:], metric[:, prefix:])
    order = elu(similarity - margin).mean(dim=2).argsort(dim=1, descending=True, stable=True)
    able = order[:, : 2 * r] if protect else order
    givers, takers = able[:, ::2], able[:, 1::2]
    best, partner = _between(similarity, givers, takers).max(dim=2)
    stays = order[:, 2 * r :]
    if not protect:
        ranks = best.argsort(dim=1, descending=True, stable=True)
        givers, partner = givers.gather(1, ranks), partner.gather(1, ranks)
        givers, stays, partner = givers[:, :r], givers[:, r:], partner[:, :r]
    return _matching(prefix, stays, takers, givers, partner)


def text_matching(metric: Tensor, r: int, prefix: int, margin: float) -> Matching:
    """The release's matching for text encoders: of the 2 r tokens of highest energy the first r merge into the others.

    Energy is here the mean of a Gaussian of 1 - cosine whose standard deviation is 1 - `margin`. Otherwise as
    `energy_matching`.
    """
    similarity = cosines(metric[:, prefix:], metric[:, prefix:])
    energy = torch.exp(-0.5 * ((1 - similarity) / (1 - margin)) ** 2).mean(dim=2)
    order = energy.argsort(dim=1, descending=True, stable=True)
    givers, takers, stays = order[:, :r], order[:, r : 2 * r], order[:, 2 * r :]
    return _matching(prefix, stays, takers, givers, _between(similarity, givers, takers).argmax(dim=2))


def _between(similarity: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The entries of `similarity` `(B, N, N)` at `rows` `(B, R)` and `columns` `(B, C)`."""
    found = similarity.gather(1, rows[..., None].expand(-1, -1, similarity.shape[2]))
    return found.gather(2, columns[:, None].expand(-1, rows.shape[1], -1))


def _matching(prefix: int, stays: Tensor, takers: Tensor, givers: Tensor, partner: Tensor) -> Matching:
    """The matching of indices of patches: those that stay, those that receive, and who merges into which of these."""
    first = torch.arange(prefix, device=stays.device).expand(stays.shape[0], -1)
    kept = torch.cat((first, stays + prefix, takers + prefix), dim=1)
    return Matching(kept=kept, merged=givers + prefix, into=prefix + stays.shape[1] + partner)


def _schedule(backbone: Backbone, settings: PitomeSettings) -> tuple[BlockTokens, ...]:
    if not 0.5 <= settings.ratio <= 1:
        raise BudgetError(f"ratio {settings.ratio} must lie from 0.5 to 1: a block merges at most half of its patches")
    schedule, tokens = [], backbone.tokens
    for _ in range(backbone.depth):
        patches = tokens - backbone.prefix
        left = tokens - math.floor(patches - patches * settings.ratio)
        schedule.append(BlockTokens(attention=tokens, mlp=left))
        tokens = left
    return tuple(schedule)


METHOD = reducer(
    SpectrumPreservingMerging,
    id="pitome",
    title="PiToMe",
    idea="In every block, merge tokens that resemble many others, and leave those alone that resemble few.",
    acts="every block, after attention",
    paper=Paper(
        title="Accelerating Transformers with Spectrum-Preserving Token Merging",
        authors="Tran, Nguyen, Nguyen, Nguyen, Le, Xie, Sonntag, Zou, Nguyen, Niepert",
        year=2024,
        url="https://arxiv.org/abs/2405.16148",
    ),
    settings=PitomeSettings,
    knob=Knob("ratio", "rate"),
)
