"""Token Pooling by weighted K-medoids: before three blocks, keep the tokens that best stand for all of them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from reference_impls.layers.reduction import Reduction, TokenState, select, with_prefix
from reference_impls.layers.stages import stage_schedule, stage_targets
from reference_impls.layers.vit_attention import Attended, wide
from reference_impls.layers.vit_backbone import AttentionKind, Backbone, inspect_backbone
from reference_impls.layers.vit_driver import ReducedViT
from tokenmark.contracts import BudgetError, Paper, ReducerMethod


@dataclass(frozen=True, slots=True)
class KMedoidsSettings:
    """How many clusters are left at each stage, and how long they are refined."""

    keep_rate: float | tuple[float, ...] = 0.7
    """Kept per stage, so stage s leaves int(patches * keep_rate ** s); or one fraction of all patches per stage."""
    blocks: tuple[int, ...] = (3, 6, 9)
    """0-based blocks whose tokens are clustered before they enter; not 0, as weights come from the block before."""
    iterations: int = 3


class WeightedKMedoids(Reduction):
    """Clusters the patches before a block; their weights are the attention they received in the block before."""

    def __init__(self, backbone: Backbone, settings: KMedoidsSettings) -> None:
        targets = stage_targets(backbone, settings.keep_rate, settings.blocks)
        super().__init__(stage_schedule(backbone, targets, "before_block"))
        if settings.blocks[0] == 0:
            raise BudgetError("k-medoids weighs tokens by the attention of the block before: block 0 has none")
        if settings.iterations < 0:
            raise BudgetError(f"iterations {settings.iterations} must not be negative")
        self.prefix = backbone.prefix
        self.iterations = settings.iterations

    def needs_rows(self, block: int) -> bool:
        """The block before a clustering shows its whole attention matrix."""
        after = block + 1
        return after < len(self.schedule) and self.schedule[after].attention < self.schedule[block].mlp

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
    distances = _distances(points)
    cost = (weights.detach() * distances.sum(dim=2))[:, None]
    clusters = torch.arange(k, device=points.device)[None, :, None]
    for _ in range(iterations):
        member = _nearest(distances, medoids)[:, None] == clusters
        best = torch.where(member, cost, torch.inf).argmin(dim=2)
        # Of two equal points the later one's cluster can be empty: it keeps its medoid.
        medoids = torch.where(member.any(dim=2), best, medoids)
    return medoids


def nearest_medoid(points: Tensor, medoids: Tensor) -> Tensor:
    """For each of `points` `(B, N, C)` the cluster `(B, N)` whose medoid (`(B, k)` indices) is nearest."""
    return _nearest(_distances(points), medoids)


def _distances(points: Tensor) -> Tensor:
    points = points.detach().to(wide(points))
    distances = torch.cdist(points, points)
    # The matrix-product form leaves rounding noise on the diagonal, and a medoid must be a member of its own cluster.
    return distances.masked_fill(torch.eye(points.shape[1], dtype=torch.bool, device=points.device), 0.0)


def _nearest(distances: Tensor, medoids: Tensor) -> Tensor:
    columns = medoids[:, None, :].expand(-1, distances.shape[1], -1)
    return distances.gather(2, columns).argmin(dim=2)


def build(model: nn.Module, settings: KMedoidsSettings, *, attention: AttentionKind = "fused") -> ReducedViT:
    """Reduce a timm vision transformer by weighted K-medoids; prefix tokens always stay.

    The block before each clustering runs eager attention, whose matrix is the weights' source.

    Raises:
        UnsupportedBackboneError: the driver does not serve `model`.
        BudgetError: impossible rates or blocks (see `stage_targets`), a clustering before block 0, negative iterations.
    """
    backbone = inspect_backbone(model, attention)
    return ReducedViT(backbone, WeightedKMedoids(backbone, settings), attention)


METHOD = ReducerMethod(
    id="k-medoids",
    title="Token Pooling (weighted K-medoids)",
    idea="Before three blocks, cluster the tokens, weighted by the attention they received, and keep the medoids.",
    paper=Paper(
        title="Token Pooling in Vision Transformers",
        authors="Marin, Chang, Ranjan, Prabhu, Rastegari, Tuzel",
        year=2021,
        url="https://arxiv.org/abs/2110.03860",
    ),
    settings=KMedoidsSettings,
    build=build,
)
