"""DPC-KNN: before three blocks, cluster the patches around peaks of their density, and mix each cluster into one."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from reference_impls.layers.clustering import nearest, pairwise_distances
from reference_impls.layers.reduction import TokenState, select, with_prefix
from reference_impls.layers.soft_clusters import LAYOUT
from reference_impls.layers.stages import KEEP_RATE, StagedReduction, Stages, haurum_variants
from reference_impls.layers.vit_attention import wide
from reference_impls.layers.vit_backbone import Backbone
from reference_impls.layers.vit_driver import reducer
from tokenmark.contracts import BudgetError, Paper


@dataclass(frozen=True, slots=True)
class DpcKnnSettings(Stages):
    """How many clusters are left at each stage, and how they are made."""

    neighbours: int = 5
    """How many nearest patches tell a patch's density, itself included."""
    equal_weight: bool = False
    """Whether a cluster is the plain mean of its members; else a learned score weighs them."""


class ClusterWeights(nn.Module):
    """How much every patch weighs in its cluster: the exponential of a linear score."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Weights `(B, N)` of patches `x` `(B, N, C)`, in float32 or wider."""
        score: Tensor = self.score(x).squeeze(2)
        return score.to(wide(score)).exp()


class DensityPeaks(StagedReduction):
    """Clusters the patches before a block (density peaks over k nearest neighbours); a cluster has its peak's place."""

    where = "before_block"
    noise: tuple[Tensor, ...] = ()
    """The release draws it to break ties, per stage `(B, N)` in [0, 1). Here none is: the earlier patch wins."""

    def __init__(self, backbone: Backbone, settings: DpcKnnSettings) -> None:
        super().__init__(backbone, settings)
        fewest = min(self.arriving(block) for block in settings.blocks) - self.prefix
        if not 1 <= settings.neighbours <= fewest:
            raise BudgetError(f"neighbours {settings.neighbours} must be 1 to {fewest}, the patches of the last stage")
        self.neighbours, self.width = settings.neighbours, backbone.width
        layers = () if settings.equal_weight else (ClusterWeights(backbone.width) for _ in settings.blocks)
        self.cluster_layers = nn.ModuleList(layers)

    @property
    def extra_macs(self) -> int:
        """The distances of every clustering, and the scores."""
        counts = [self.arriving(block) - self.prefix for block in self.stages if self.shrinks_before(block)]
        return sum(count * self.width * (count + bool(self.cluster_layers)) for count in counts)

    def before_block(self, block: int, state: TokenState) -> TokenState:
        """Mix the patches of every cluster, in falling score of the peaks."""
        if not self.shrinks_before(block):
            return state
        stage, patches = self.stages[block], state.x[:, self.prefix :]
        noise = self.noise[stage] if self.noise else None
        peaks, cluster = density_peaks(patches, self.schedule[block].attention - self.prefix, self.neighbours, noise)
        if self.cluster_layers:
            weights = self.cluster_layers[stage](patches)
        else:
            weights = torch.ones_like(patches[..., 0], dtype=wide(patches))
        mixed = mix_clusters(patches, weights, cluster, peaks.shape[1]).to(state.x.dtype)
        kept = select(state, with_prefix(peaks, self.prefix), with_prefix(cluster, self.prefix))
        return replace(kept, x=torch.cat((state.x[:, : self.prefix], mixed), dim=1))


def density_peaks(points: Tensor, k: int, neighbours: int, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The `k` peaks among `points` `(B, N, C)`, `(B, k)`, and the peak that each point belongs to, `(B, N)`.

    A point's density is exp(-mean of the squared distances to its nearest `neighbours`), where a distance is Euclidean
    over sqrt(C). Peaks have the highest product of density and distance to the nearest denser point (the densest: to
    the farthest two points of the image); they come in falling product. The others go to the nearest peak, the first
    on ties. `noise` `(B, N)` times 1e-6 is added to the density.
    """
    distances = pairwise_distances(points) / points.shape[2] ** 0.5
    density = (-distances.topk(neighbours, dim=2, largest=False).values.square().mean(dim=2)).exp()
    if noise is not None:
        density = density + 1e-6 * noise
    denser = density[:, None, :] > density[:, :, None]
    farthest = distances.amax(dim=(1, 2), keepdim=True)
    peak = density * torch.where(denser, distances, farthest).amin(dim=2)
    peaks = peak.argsort(dim=1, descending=True, stable=True)[:, :k]
    # A peak may lie on another one, and must not leave its own cluster empty.
    own = torch.arange(k, device=peaks.device).expand_as(peaks)
    return peaks, nearest(distances, peaks).scatter(1, peaks, own)


def mix_clusters(x: Tensor, weights: Tensor, cluster: Tensor, k: int) -> Tensor:
    """The mean `(B, k, C)` of every cluster's members among `x` `(B, N, C)` under `weights` `(B, N)`."""
    total = weights.new_zeros(x.shape[0], k).scatter_add(1, cluster, weights)
    into = cluster[..., None].expand_as(x)
    summed = weights.new_zeros(x.shape[0], k, x.shape[2]).scatter_add(1, into, x * weights[..., None])
    return summed / (total[..., None] + 1e-6)


METHOD = reducer(
    DensityPeaks,
    id="dpcknn",
    title="DPC-KNN",
    idea="Before three blocks, cluster the patches around density peaks and mix each cluster by learned weights.",
    acts="before 3 blocks",
    paper=Paper(
        title="Not All Tokens Are Equal: Human-centric Visual Analysis via Token Clustering Transformer",
        authors="Zeng, Jin, Liu, Qian, Luo, Ouyang, Wang",
        year=2022,
        url="https://arxiv.org/abs/2204.08680",
    ),
    settings=DpcKnnSettings,
    knob=KEEP_RATE,
    trained=True,
    variants=haurum_variants(),
    layout=LAYOUT,
)
