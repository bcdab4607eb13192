"""Token Pooling: after blocks, replace the patches by the centres of their clusters, weighted by their significance.

No release: read from the paper's abstract and from accounts of it (arXiv 2110.03860). After a transformer block K
centres take the place of N tokens, so that the weighted asymmetric Chamfer error, the sum of w_i min_j |f_i - c_j|^2,
is small: by K-means (means of members) or K-medoids (tokens), in at most 5 rounds, under PoWER-BERT's significance w,
the attention that a token receives over all heads and queries of the block. Weighted K-medoids did best. What the paper
leaves open, and what was taken:

- counts: the paper searches them by training (`layers.soft_extract` does, and gives `kept`). Without a search they fall
  by one factor per block, P g^l after block l (from 1; rounded, one at the least), g as great as `macs_rate` allows,
  the clustering's own MACs included. Nothing is pooled after the last block;
- starting centres: the most significant patches, also where clusters are not weighted (the paper finds that the start
  hardly matters);
- class, distillation and register tokens are not pooled; attention is not proportional, and a mean over tokens plain;
- a mean has the place of the token nearest to it, where blocks look at places.

Haurum et al.'s variant of it is `k-medoids`.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from reference_impls.layers.clustering import distances_between, k_means, k_medoids, nearest_medoid
from reference_impls.layers.macs_target import Schedule, after_blocks, dearest_within, left_after
from reference_impls.layers.reduction import Reduction, TokenState, select, with_prefix
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BudgetError, Knob, Paper


@dataclass(frozen=True, slots=True)
class TokenPoolingSettings:
    """How many patches are left after each block, and how their clusters are found."""

    macs_rate: float = 0.58
    """What the reduced model costs, pooling included, as a share of the unreduced one's MACs: counts that fall by one
    factor per block are chosen for it."""
    kept: tuple[int, ...] | None = None
    """Patches left after each block but the last, in place of `macs_rate`."""
    clustering: Literal["k-medoids", "k-means"] = "k-medoids"
    weighted: bool = True
    """Whether clusters are weighted by significance."""
    iterations: int = 5


class TokenPooling(Reduction):
    """Clusters the patches that leave a block; what attention in that block says of them weighs them."""

    def __init__(self, backbone: Backbone, settings: TokenPoolingSettings) -> None:
        if settings.iterations < 0:
            raise BudgetError(f"iterations {settings.iterations} must not be negative")
        super().__init__(backbone, _schedule(backbone, settings))
        self.settings = settings
        self.width = backbone.width

    @property
    def extra_macs(self) -> int:
        """The distances of every clustering."""
        return _distance_macs(self.schedule, self.prefix, self.width, self.settings)

    def pools_after(self, block: int) -> bool:
        """Whether fewer tokens go on after `block` than leave its MLP."""
        return left_after(self.schedule, block) < self.schedule[block].mlp

    def needs_rows(self, block: int) -> bool:
        """A block after which tokens are pooled shows its whole attention matrix."""
        return self.pools_after(block)

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Keep how much attention every token received, where the block's output is pooled."""
        return replace(state, score=seen.received()) if self.pools_after(block) else state

    def after_block(self, block: int, state: TokenState) -> TokenState:
        """Let the centres take the place of the patches, in falling significance of those that they started from."""
        if state.score is None:
            return state
        patches, significance = state.x[:, self.prefix :], state.score[:, self.prefix :].detach()
        count = left_after(self.schedule, block) - self.prefix
        start = significance.argsort(dim=1, descending=True, stable=True)[:, :count]
        weights = significance if self.settings.weighted else torch.ones_like(significance)
        state = replace(state, score=None)
        if self.settings.clustering == "k-medoids":
            medoids = k_medoids(patches, weights, start, self.settings.iterations)
            goes_to = None if state.source is None else nearest_medoid(patches, medoids)
            return self._select(state, medoids, goes_to)
        centres = k_means(patches, weights, start, self.settings.iterations)
        distances = distances_between(patches, centres)
        placed = self._select(state, distances.argmin(dim=1), distances.argmin(dim=2))
        return replace(placed, x=torch.cat((state.x[:, : self.prefix], centres), dim=1))

    def _select(self, state: TokenState, index: Tensor, cluster: Tensor | None) -> TokenState:
        """Keep the patches at `index`; `cluster` is the centre of every patch, for tracing."""
        goes_to = None if cluster is None else with_prefix(cluster, self.prefix)
        return select(state, with_prefix(index, self.prefix), goes_to)


def _schedule(backbone: Backbone, settings: TokenPoolingSettings) -> Schedule:
    """The counts that the settings give, or that fall by one factor per block and cost what they ask for."""
    blocks, patches = range(backbone.depth - 1), backbone.patches
    if settings.kept is None:

        def decaying(strength: float) -> Schedule:
            left = {block: max(1, round(patches * (1 - strength) ** (block + 1))) for block in blocks}
            return after_blocks(backbone, left)

        def own(strength: float) -> int:
            return _distance_macs(decaying(strength), backbone.prefix, backbone.width, settings)

        return decaying(dearest_within(settings.macs_rate, backbone, decaying, own))
    kept = settings.kept
    if len(kept) != len(blocks) or list(kept) != sorted(kept, reverse=True) or kept[0] > patches or kept[-1] < 1:
        raise BudgetError(
            f"kept {kept} must be {len(blocks)} numbers, one for each block but the last, that do not rise, "
            f"from {patches} at the most to 1 at the least"
        )
    return after_blocks(backbone, dict(zip(blocks, kept, strict=True)))


def _distance_macs(schedule: Schedule, prefix: int, width: int, settings: TokenPoolingSettings) -> int:
    """MACs of distances: once between all patches, or in each round, and for the places, between patches and means."""
    total = 0
    for block, tokens in enumerate(schedule):
        left = left_after(schedule, block)
        if left < tokens.mlp and settings.clustering == "k-medoids":
            total += (tokens.mlp - prefix) ** 2 * width
        elif left < tokens.mlp:
            total += (settings.iterations + 1) * (tokens.mlp - prefix) * (left - prefix) * width
    return total


METHOD = reducer(
    TokenPooling,
    id="token-pooling",
    title="Token Pooling",
    idea="After blocks, let the centres of weighted clusters, by K-medoids or K-means, take the place of the patches.",
    acts="after every block but the last",
    paper=Paper(
        title="Token Pooling in Vision Transformers",
        authors="Marin, Chang, Ranjan, Prabhu, Rastegari, Tuzel",
        year=2021,
        url="https://arxiv.org/abs/2110.03860",
    ),
    settings=TokenPoolingSettings,
    knob=Knob("macs_rate", "rate"),
)
