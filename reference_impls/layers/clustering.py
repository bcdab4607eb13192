"""Clusters of tokens: K-means and K-medoids under weights (arXiv 2110.03860), without loops over images."""

import torch
from torch import Tensor

from reference_impls.layers.vit_attention import wide

__all__ = ["distances_between", "k_means", "k_medoids", "nearest", "nearest_medoid", "pairwise_distances"]


def pairwise_distances(points: Tensor) -> Tensor:
    """Euclidean distances between `points` `(B, N, C)`, `(B, N, N)`, for ranking: no gradient, float32 or wider."""
    distances = distances_between(points, points)
    # The matrix-product form leaves rounding noise on the diagonal, and a medoid must be a member of its own cluster.
    return distances.masked_fill(torch.eye(points.shape[1], dtype=torch.bool, device=points.device), 0.0)


def distances_between(points: Tensor, centres: Tensor) -> Tensor:
    """Euclidean distances from `points` `(B, N, C)` to `centres` `(B, K, C)`, `(B, N, K)`; as `pairwise_distances`."""
    return torch.cdist(points.detach().to(wide(points)), centres.detach().to(wide(centres)))


def nearest(distances: Tensor, medoids: Tensor) -> Tensor:
    """For every point its cluster `(B, N)`, the nearest of `medoids` `(B, K)` (indices) by `distances` `(B, N, N)`.

    Of equally near ones the first.
    """
    columns = medoids[:, None, :].expand(-1, distances.shape[1], -1)
    return distances.gather(2, columns).argmin(dim=2)


def nearest_medoid(points: Tensor, medoids: Tensor) -> Tensor:
    """For each of `points` `(B, N, C)` the cluster `(B, N)` whose medoid (`(B, K)` indices) is nearest."""
    return nearest(pairwise_distances(points), medoids)


def k_medoids(points: Tensor, weights: Tensor, start: Tensor, iterations: int) -> Tensor:
    """Indices `(B, K)` of medoids of `points` `(B, N, C)`, from those at `start` `(B, K)` on.

    They lessen the sum over points of `weights` `(B, N)` times the squared distance to the nearest medoid. Each round
    gives every point to its nearest medoid, and makes that member of a cluster its medoid for which this sum over the
    cluster's members is least; of equal ones the first. A cluster without members keeps its medoid.
    """
    distances, medoids = pairwise_distances(points), start
    errors = weights.detach()[:, :, None] * distances.square()
    clusters = torch.arange(start.shape[1], device=points.device)[None, :, None]
    for _ in range(iterations):
        cluster = nearest(distances, medoids)
        together = cluster[:, :, None] == cluster[:, None, :]
        cost = torch.where(together, errors, 0.0).sum(dim=1)
        member = cluster[:, None] == clusters
        best = torch.where(member, cost[:, None], torch.inf).argmin(dim=2)
        medoids = torch.where(member.any(dim=2), best, medoids)
    return medoids


def k_means(points: Tensor, weights: Tensor, start: Tensor, iterations: int) -> Tensor:
    """Centres `(B, K, C)` of `points` `(B, N, C)`, from those at `start` `(B, K)` on, by Lloyd's rounds.

    Each round gives every point to its nearest centre (of equally near ones the first), and moves a centre to its
    members' mean under `weights` `(B, N)`; one without members stays. Gradients pass through the last mean.
    """
    weights = weights.detach()[..., None]
    centres = points.gather(1, start[..., None].expand(-1, -1, points.shape[2])).to(wide(points))
    for _ in range(iterations):
        cluster = distances_between(points, centres).argmin(dim=2)[..., None]
        summed = torch.zeros_like(centres).scatter_add(1, cluster.expand_as(points), (weights * points).to(centres))
        total = torch.zeros_like(centres[..., :1]).scatter_add(1, cluster, weights.to(centres))
        centres = torch.where(total > 0, summed / torch.where(total > 0, total, 1), centres)
    return centres.to(points.dtype)
