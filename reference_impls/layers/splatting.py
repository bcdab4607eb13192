"""Featured 2-D Gaussians drawn onto a grid (GaussianToken, arXiv 2501.15619, section 3.2)."""

import torch
from torch import Tensor

from reference_impls.layers.precision import at_least_float32

__all__ = ["splat"]

TILE = 16
"""Side of the tiles, in cells, within which the release's kernels draw a Gaussian or leave it out."""
FAINTEST = 1.0 / 255.0
"""Smaller weights are left out."""
BUDGET = 2**24
"""How many weights are held at once: Gaussians times cells, over the batch."""


def splat(
    means: Tensor, scales: Tensor, rotations: Tensor, features: Tensor, shape: tuple[int, int], budget: int = BUDGET
) -> Tensor:
    """A grid `(B, C, H, W)` on which every Gaussian adds its features, weighed by its unnormalised density.

    There is no order, no opacity and no background. A Gaussian reaches the tiles that the box of three deviations
    around it touches, and of those the cells where its density is 1/255 or more.

    UNVERIFIED against the release: its rasteriser runs on CUDA only. This is the formula that its kernels were read to
    compute; cells lie at integer coordinates, not at their centres.

    Args:
        means: Centres (x, y) in [-1, 1], `(B, N, 2)`.
        scales: Deviations along a Gaussian's own axes, in cells, `(B, N, 2)`.
        rotations: Angles in radians, `(B, N, 1)`.
        features: `(B, N, C)`.
        shape: H and W.
        budget: How many weights may be held at once; the Gaussians are drawn in as many turns as it takes.
    """
    batch, count, _ = features.shape
    height, width = shape
    turn = max(1, budget // max(1, batch * height * width))
    with torch.autocast(features.device.type, enabled=False):
        drawn = at_least_float32(features).new_zeros(batch, height * width, features.shape[2])
        for start in range(0, count, turn):
            part = slice(start, start + turn)
            shapes = (at_least_float32(values[:, part]) for values in (means, scales, rotations))
            weights = _weights(shape, *shapes)
            drawn = drawn + weights.flatten(2).transpose(1, 2) @ at_least_float32(features[:, part])
    grid: Tensor = drawn.transpose(1, 2).unflatten(2, shape)
    return grid


def _weights(shape: tuple[int, int], means: Tensor, scales: Tensor, rotations: Tensor) -> Tensor:
    """Weights `(B, n, H, W)` of n Gaussians on every cell."""
    height, width = shape
    # (B, n) each.
    x, y = 0.5 * width * (means[..., 0] + 1.0), 0.5 * height * (means[..., 1] + 1.0)
    cos, sin = rotations[..., 0].cos(), rotations[..., 0].sin()
    first, second = scales.square().unbind(-1)
    # Covariance R diag(s^2) R^T with R = [[cos, sin], [-sin, cos]].
    xx = cos.square() * first + sin.square() * second
    xy = sin * cos * (second - first)
    yy = sin.square() * first + cos.square() * second
    det = first * second
    half = 0.5 * (xx + yy)
    largest = half + (half.square() - det).clamp(min=0.1).sqrt()
    radius = (3.0 * largest.sqrt()).ceil()

    rows = torch.arange(height, device=means.device, dtype=means.dtype)
    columns = torch.arange(width, device=means.device, dtype=means.dtype)
    down, right = y[..., None] - rows, x[..., None] - columns  # (B, n, H) and (B, n, W)
    inverse = 1.0 / det
    along = 0.5 * (inverse * yy)[..., None] * right.square()
    across = 0.5 * (inverse * xx)[..., None] * down.square()
    both = (inverse * xy)[..., None, None] * down[..., None] * right[..., None, :]
    distance = across[..., None] + along[..., None, :] - both
    weights = torch.exp(-distance).clamp(max=1.0)
    seen = _reached(y, radius, rows)[..., None] & _reached(x, radius, columns)[..., None, :]
    return torch.where(seen & (distance >= 0) & (weights >= FAINTEST), weights, 0.0)


def _reached(centre: Tensor, radius: Tensor, cells: Tensor) -> Tensor:
    """Whether a cell's tile is touched, along one axis: bool `(B, n, cells)`; tile numbers are truncated towards 0."""
    first = ((centre - radius) / TILE).trunc()[..., None]
    behind = ((centre + radius) / TILE + 1.0).trunc()[..., None]
    tiles = (cells / TILE).floor()
    return (tiles >= first) & (tiles < behind)
