"""Token Pooling by weighted K-medoids: before three blocks, keep the tokens that best stand for all of them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reference_impls.layers.clustering import nearest, nearest_medoid, pairwise_distances
from reference_impls.layers.reduction import TokenState, select, with_prefix
from reference_impls.layers.stages import KEEP_RATE, StagedReduction, Stages
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BudgetError, Paper


@dataclass(frozen=True, slots=True)
class KMedoidsSettings(Stages):
    """How many clusters are left at each stage, and how long they are refined; block 0 cannot be a stage."""

    iterations: int = 3


class WeightedKMedoids(StagedReduction):
    """Clusters the patches before a block; their weights are the attention they received in the block before."""

    where = "before_block"

    def __init__(self, backbone: Backbone, settings: KMedoidsSettings) -> None:
        super().__init__(backbone, settings)
        if settings.blocks[0] == 0:
            raise BudgetError("k-medoids weighs tokens by the attention of the block before: block 0 has none")
        if settings.iterations < 0:
            raise BudgetError(f"iterations {settings.iterations} must not be negative")
        self.iterations = settings.iterations
        self.width = backbone.width

    @property
    def extra_macs(self) -> int:
        """The distances of every clustering."""
        stages = [block for block in range(len(self.schedule)) if self.shrinks_before(block)]
        return sum((self.schedule[block - 1].mlp - self.prefix) ** 2 * self.width for block in stages)

    def needs_rows(self, block: int) -> bool:
        """The block before a clustering shows its whole attention matrix."""
        return block + 1 < len(self.schedule) and self.shrinks_before(block + 1)

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Hand on how much attention every token received, where the next block clusters."""
        return replace(state, score=seen.received()) if self.needs_rows(block) else state

    def before_block(self, block: int, state: TokenState) -> TokenState:
        """Keep the medoids, in the order of their clusters."""
        if state.score is None:
            return state
        patches, weights = state.x[:, self.prefix :], state.score[:, self.prefix :]
        medoids = weighted_k_medoids(patches, weights, self.schedule[block].attention - self.prefix, self.iterations)
        goes_to = None
        if state.source is not None:
            goes_to = with_prefix(nearest_medoid(patches, medoids), self.prefix)
        return replace(select(state, with_prefix(medoids, self.prefix), goes_to), score=None)


def weighted_k_medoids(points: Tensor, weights: Tensor, k: int, iterations: int) -> Tensor:
    """Indices `(B, k)` of the medoids of `points` `(B, N, C)` under `weights` `(B, N)`.

    Starts at the k heaviest points, in falling weight. Each round gives every point to its nearest medoid (Euclidean;
    the first on ties), and makes that member a cluster's medoid whose own weight times the sum of its distances to
    ALL points is least. So does the release; textbook K-medoids sums over the cluster's members.
    """
    medoids = weights.detach().argsort(dim=1, descending=True, stable=True)[:, :k]
    distances = pairwise_distances(points)
    cost = (weights.detach() * distances.sum(dim=2))[:, None]
    clusters = torch.arange(k, device=points.device)[None, :, None]
    for _ in range(iterations):
        member = nearest(distances, medoids)[:, None] == clusters
        best = torch.where(member, cost, torch.inf).argmin(dim=2)
        # Of two equal points the later one's cluster can be empty: it keeps its medoid.
        medoids = torch.where(member.any(dim=2), best, medoids)
    return medoids


METHOD = reducer(
    WeightedKMedoids,
    id="k-medoids",
    title="Token Pooling (weighted K-medoids)",
    idea="Before three blocks, cluster the tokens, weighted by the attention they received, and keep the medoids.",
    acts="before 3 blocks",
    paper=Paper(
        title="Token Pooling in Vision Transformers",
        authors="Marin, Chang, Ranjan, Prabhu, Rastegari, Tuzel",
        year=2021,
        url="https://arxiv.org/abs/2110.03860",
    ),
    settings=KMedoidsSettings,
    knob=KEEP_RATE,
)
