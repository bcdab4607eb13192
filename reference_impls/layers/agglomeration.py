"""Agglomerative clustering of tokens (Haurum et al., "Agglomerative Token Clustering", ECCV 2024, section 3)."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from reference_impls.layers.matching import cosines, head_mean_keys
from reference_impls.layers.reduction import Reduction, TokenState, merge_clusters
from reference_impls.layers.vit_attention import Attended
from reference_impls.layers.vit_backbone import Backbone
from tokenmark.contracts import BlockTokens, BudgetError, Paper

__all__ = ["ATC", "Clustering", "Linkage", "agglomerate", "check_linkage"]

ATC = Paper(
    title="Agglomerative Token Clustering",
    authors="Haurum, Escalera, Taylor, Moeslund",
    year=2024,
    url="https://arxiv.org/abs/2409.11923",
)
Linkage = Literal["single", "complete", "average"]


class Clustering(Reduction):
    """After attention, merges the patches into clusters of alike keys until the schedule's number is left.

    The clustering runs on the CPU, image by image, as in the release: every block that clusters waits for the device.
    """

    def __init__(self, backbone: Backbone, schedule: tuple[BlockTokens, ...], linkage: Linkage) -> None:
        super().__init__(backbone, schedule)
        check_linkage(linkage)
        self.linkage: Linkage = linkage
        self.head_width = backbone.blocks[0].head_width

    def clusters_in(self, block: int) -> bool:
        """Whether the patches are clustered in `block`."""
        return self.reduces_in(block)

    @property
    def extra_macs(self) -> int:
        """The similarities of all pairs of patches, in every block that clusters."""
        found = [each.attention - self.prefix for i, each in enumerate(self.schedule) if self.clusters_in(i)]
        return sum(patches**2 * self.head_width for patches in found)

    def after_attention(self, block: int, state: TokenState, seen: Attended) -> TokenState:
        """Merge each cluster into its mean by size; prefix tokens stay alone."""
        if not self.clusters_in(block):
            return state
        count = self.schedule[block].mlp - self.prefix
        keys = head_mean_keys(seen.keys)[:, self.prefix :]
        labels = agglomerate(1 - cosines(keys, keys), count, self.linkage)
        first = torch.arange(self.prefix, device=labels.device).expand(labels.shape[0], -1)
        return merge_clusters(state, torch.cat((first, labels + self.prefix), dim=1), self.prefix + count)


def check_linkage(linkage: str) -> None:
    """Refuse a distance of clusters that there is not.

    Raises:
        BudgetError: it has another name.
    """
    if linkage not in {"single", "complete", "average"}:
        raise BudgetError(f"linkage '{linkage}' does not exist: choose single, complete or average")


@torch.compiler.disable  # type: ignore[untyped-decorator]
def agglomerate(distances: Tensor, count: int, linkage: Linkage) -> Tensor:
    """The cluster of each of N points, `(B, N)` int64 from 0 to `count` - 1, as scikit-learn numbers them.

    Beginning with every point alone, the two clusters of the least distance are merged until `count` are left. Of the
    distances `(B, N, N)` between their members, the distance of two clusters is the least (`single`), the greatest
    (`complete`) or the mean (`average`).
    """
    from sklearn.cluster import AgglomerativeClustering  # noqa: PLC0415  it takes a second to import

    clustering = AgglomerativeClustering(n_clusters=count, metric="precomputed", linkage=linkage)
    labels = np.zeros(distances.shape[:2], dtype=np.int64)
    if labels.shape[1] > 1:  # scikit-learn takes two points at least
        for image, matrix in enumerate(distances.nan_to_num(nan=2.0).cpu().numpy()):
            labels[image] = clustering.fit_predict(matrix)
    return torch.from_numpy(labels).to(distances.device)
