"""Clusters of patches that keep a grid, and the way back (Liang et al., NeurIPS 2022, section 3).

The paper is "Expediting Large-Scale Vision Transformer for Dense Prediction without Fine-tuning". Its token clustering
layer is a soft K-means whose patches know the clusters near them only; its token reconstruction layer lets every patch
read the processed clusters by their likeness before they were processed.
"""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, normalize

from reference_impls.layers.precision import without_autocast

__all__ = ["cluster", "home_cells", "initial_centroids", "nearest_centroid", "reconstruction_weights"]


def initial_centroids(patches: Tensor, grid: tuple[int, int], clusters: tuple[int, int]) -> Tensor:
    """Means of the patches `(B, H W, C)` of `grid` (H, W) over `clusters` (rows, columns) cells, `(B, K, C)`."""
    return adaptive_avg_pool2d(patches.transpose(1, 2).unflatten(2, grid), clusters).flatten(2).transpose(1, 2)


def home_cells(grid: tuple[int, int], clusters: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """The row and the column of the cell that each patch lies in, `(H W, 2)` int64."""
    sides = zip(grid, clusters, strict=True)
    rows, columns = (torch.arange(side, device=device) * cells // side for side, cells in sides)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).flatten(0, 1)


def cluster(
    patches: Tensor,
    grid: tuple[int, int],
    clusters: tuple[int, int],
    *,
    window: int,
    iterations: int,
    temperature: float,
) -> Tensor:
    """Centroids `(B, K, C)` of `patches` `(B, H W, C)`, in the order of their cells.

    Each round gives a patch to the clusters of the `window` x `window` cells around its own, by the softmax of
    -`temperature` times the squared distance, and makes a centroid the mean of the patches by these shares.
    """
    centroids = initial_centroids(patches, grid, clusters)
    home = home_cells(grid, clusters, patches.device)
    rows, columns = torch.arange(clusters[0], device=home.device), torch.arange(clusters[1], device=home.device)
    cells = torch.cartesian_prod(rows, columns)
    far = ((home[:, None] - cells).abs() > window // 2).any(dim=2)
    for _ in range(iterations):
        logits = -temperature * _squared_distances(patches, centroids)
        shares = logits.masked_fill(far, -torch.inf).softmax(dim=2)
        with without_autocast(patches):
            summed = shares.transpose(1, 2) @ patches
        centroids = summed / shares.sum(dim=1)[..., None].clamp(min=1e-16)
    return centroids


def nearest_centroid(patches: Tensor, centroids: Tensor) -> Tensor:
    """For every patch the nearest of all centroids, `(B, N)` int64."""
    return _squared_distances(patches, centroids).argmin(dim=2)


def reconstruction_weights(patches: Tensor, centroids: Tensor, k: int, temperature: float) -> Tensor:
    """How far every patch reads every cluster, `(B, N, K)`: exp(-`temperature` times the squared distance).

    Of each patch's weights the `k` largest stay, with all that equal the least of them (all weights, where `k` is
    negative or there are no more), and are brought to a Euclidean length of 1, as the release has it: they do not sum
    to 1.
    """
    logits = -temperature * _squared_distances(patches, centroids)
    # The length comes out the same, and not all weights of a patch far from every centroid vanish.
    weights = (logits - logits.amax(dim=2, keepdim=True)).exp()
    if 0 <= k < weights.shape[2]:
        least = weights.topk(k, dim=2).values[..., -1:]
        weights = torch.where(weights >= least, weights, 0.0)
    return normalize(weights, dim=2)


def _squared_distances(patches: Tensor, centroids: Tensor) -> Tensor:
    with without_autocast(patches):
        return torch.cdist(patches, centroids).square()
