"""Expedit: between two blocks, let clusters of patches take the patches' place, and read the patches back from them."""

import math
from dataclasses import dataclass, replace

import torch

from reference_impls.layers.families.base import Backbone
from reference_impls.layers.local_clustering import cluster, nearest_centroid, reconstruction_weights
from reference_impls.layers.reduction import Reduction, TokenState, remake, with_prefix
from reference_impls.layers.stages import KEEP_RATE
from reference_impls.layers.vit_attention import wide
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BlockTokens, BudgetError, Paper


@dataclass(frozen=True, slots=True)
class ExpeditSettings:
    """How many clusters there are, which blocks see them, and how they are made and read."""

    keep_rate: float = 0.5
    """Clusters per patch at most: each side of their grid is int(side of the patches' grid * sqrt(keep_rate)). Of 1,
    nothing is clustered."""
    start: int = 5
    """The first block that sees clusters, 0-based (alpha of the paper)."""
    stop: int | None = None
    """The block before which the patches come back (beta); None: they come back after the last block."""
    window: int = 5
    """Side of the square of cells, around its own, whose clusters a patch can be given to; odd."""
    iterations: int = 5
    temperature: float = 0.05
    """Of the clustering, by which squared distances are multiplied."""
    read: int = 20
    """Clusters that each patch reads; all where there are no more, or where it is negative."""
    read_temperature: float = 0.05


class ClusteredBlocks(Reduction):
    """Clusters the patches before block `start`, and reconstructs all of them after block `stop` - 1."""

    makes_tokens = True

    def __init__(self, backbone: Backbone, settings: ExpeditSettings) -> None:
        self.clusters = _clusters(backbone, settings)
        self.start, self.stop = settings.start, backbone.depth if settings.stop is None else settings.stop
        if not 0 <= self.start < self.stop <= backbone.depth:
            raise BudgetError(
                f"start {settings.start} and stop {settings.stop} must rise within 0 to {backbone.depth}, this model's"
                " blocks"
            )
        count = self.clusters[0] * self.clusters[1]
        fewer = BlockTokens(backbone.prefix + count, backbone.prefix + count)
        full = backbone.unreduced()
        super().__init__(backbone, full[: self.start] + (fewer,) * (self.stop - self.start) + full[self.stop :])
        self.settings, self.grid, self.count = settings, backbone.grid, count
        self.acts = count < backbone.patches
        self.product = count * backbone.patches * backbone.width
        at_the_end = backbone.patches - count if self.stop == backbone.depth else 0
        self.pooling = at_the_end * backbone.cost.head_per_token

    @property
    def extra_macs(self) -> int:
        """Distances and means of every round, the last distances, the reading, and what the head then sees more."""
        return (2 * self.settings.iterations + 2) * self.product + self.pooling if self.acts else 0

    def before_block(self, block: int, state: TokenState) -> TokenState:
        """Make the clusters, and how the patches will read them."""
        if block != self.start or not self.acts:
            return state
        settings, prefix = self.settings, self.prefix
        patches = state.x[:, prefix:].to(wide(state.x))
        centroids = cluster(
            patches,
            self.grid,
            self.clusters,
            window=settings.window,
            iterations=settings.iterations,
            temperature=settings.temperature,
        )
        weights = reconstruction_weights(patches, centroids, settings.read, settings.read_temperature)
        goes_to = None
        if state.source is not None:
            goes_to = with_prefix(nearest_centroid(patches, centroids), prefix)
        x = torch.cat((state.x[:, :prefix], centroids.to(state.x.dtype)), dim=1)
        return replace(remake(state, x, goes_to), carried=(weights.to(state.x.dtype),))

    def after_block(self, block: int, state: TokenState) -> TokenState:
        """Let every patch read the clusters, in its own place."""
        if block != self.stop - 1 or not self.acts:
            return state
        (weights,) = state.carried
        x = torch.cat((state.x[:, : self.prefix], weights @ state.x[:, self.prefix :]), dim=1)
        source = state.source
        if source is not None:
            source = torch.arange(x.shape[1], device=x.device).expand_as(source)
        return replace(state, x=x, source=source, carried=())


def _clusters(backbone: Backbone, settings: ExpeditSettings) -> tuple[int, int]:
    """Rows and columns of the grid of clusters.

    Raises:
        BudgetError: a rate that leaves no cluster or more than there are patches, or rounds that cannot be run.
    """
    rate, grid = settings.keep_rate, backbone.grid
    if not 0 < rate <= 1 or int(min(grid) * math.sqrt(rate)) < 1:
        least = 1 / min(grid) ** 2
        raise BudgetError(f"keep_rate {rate} must be {least:.4g} to 1, for a cluster or more along each side")
    if settings.window < 1 or settings.window % 2 == 0 or settings.iterations < 0 or settings.read == 0:
        raise BudgetError(
            f"window {settings.window} must be odd, iterations {settings.iterations} not negative, read"
            f" {settings.read} not 0"
        )
    # A rate made by squaring a fraction of the sides must give that fraction again, whatever the root rounds to.
    rows, columns = (int(side * math.sqrt(rate) + 1e-9) for side in grid)
    return rows, columns


METHOD = reducer(
    ClusteredBlocks,
    id="expedit",
    title="Expedit",
    idea="Cluster neighbouring patches before one block; after a later one, read all patches back from the clusters.",
    acts="before one block, and after a later one",
    paper=Paper(
        title="Expediting Large-Scale Vision Transformer for Dense Prediction without Fine-tuning",
        authors="Liang, Yuan, Ding, Luo, Lin, Jia, Zhang, Zhang, Hu",
        year=2022,
        url="https://arxiv.org/abs/2210.01035",
    ),
    settings=ExpeditSettings,
    knob=KEEP_RATE,
)
