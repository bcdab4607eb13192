"""Deformable attention (Deformable DETR, arXiv 2010.04159, section 4.1) by plain bilinear sampling."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.precision import at_least_float32

__all__ = ["DeformableAttention", "cell_centres"]


def cell_centres(height: int, width: int) -> Tensor:
    """Centres (x, y) of a grid's cells, row by row, in [0, 1]: `(height * width, 2)`."""
    rows, columns = (torch.arange(count) + 0.5 for count in (height, width))
    y, x = torch.meshgrid(rows / height, columns / width, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


class DeformableAttention(nn.Module):
    """Every query looks at a few points around its own place in some maps, and says itself where and how much.

    Args:
        width: Channels of queries and maps.
        heads: Number of heads.
        levels: Number of maps.
        points: Learned points per head and map.
        fixed_point: Whether there is one more point, first in order, at an offset that does not depend on the query
            (GaussianToken). It is meant to be zero, but a release holds whatever its initialisation left there.
    """

    def __init__(self, width: int, heads: int, levels: int, points: int, *, fixed_point: bool = False) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.fixed_offsets = nn.Parameter(torch.zeros(1, 2), requires_grad=False) if fixed_point else None
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * (points + int(fixed_point)))
        self.value_proj, self.output_proj = nn.Linear(width, width), nn.Linear(width, width)
        self._initialise()

    def _initialise(self) -> None:
        """As the paper does: no offset depends on the query, and each head starts out in a direction of its own."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angles = torch.arange(self.heads) * (2.0 * math.pi / self.heads)
        ways = torch.stack([angles.cos(), angles.sin()], dim=-1)
        ways = ways / ways.abs().amax(1, keepdim=True)
        steps = torch.arange(1, self.points + 1).reshape(1, 1, -1, 1)
        offsets = ways[:, None, None] * steps.expand(-1, self.levels, -1, -1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)

    def forward(self, queries: Tensor, places: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """Queries `(B, Q, width)` at places (x, y) in [0, 1], `(Q, 2)` or `(B, Q, 2)`, and maps `(B, width, h, w)`.

        Gives `(B, Q, width)`.
        """
        shape = (*queries.shape[:2], self.heads, self.levels)
        offsets = at_least_float32(self.sampling_offsets(queries)).unflatten(2, (*shape[2:], self.points, 2))
        if self.fixed_offsets is not None:
            fixed = self.fixed_offsets.to(offsets).expand(*shape, 1, 2)
            offsets = torch.cat([fixed, offsets], dim=4)
        weights = at_least_float32(self.attention_weights(queries)).unflatten(2, (self.heads, -1))
        weights = weights.softmax(-1).unflatten(3, (self.levels, -1))
        centres = places.to(offsets)[..., None, None, :]
        mixed = torch.zeros((), device=queries.device, dtype=offsets.dtype)
        for level, grid in enumerate(maps):
            right, down = offsets[:, :, :, level].unbind(-1)  # in cells of this map
            around = centres + torch.stack([right / grid.shape[3], down / grid.shape[2]], dim=-1)
            mixed = mixed + self._sampled(grid, around, weights[:, :, :, level])
        out: Tensor = self.output_proj(mixed.to(queries.dtype))
        return out

    def _sampled(self, grid: Tensor, places: Tensor, weights: Tensor) -> Tensor:
        """One map's share `(B, Q, width)`: sampled at places `(B, Q, heads, P, 2)` with weights `(B, Q, heads, P)`."""
        values = self.value_proj(grid.flatten(2).transpose(1, 2)).transpose(1, 2)
        values = at_least_float32(values).unflatten(1, (self.heads, -1)).flatten(0, 1)
        values = values.unflatten(2, tuple(grid.shape[2:])).to(places.dtype)
        around = (2.0 * places - 1.0).transpose(1, 2).flatten(0, 1)
        sampled = functional.grid_sample(values, around, mode="bilinear", padding_mode="zeros", align_corners=False)
        mixed = (sampled * weights.transpose(1, 2).flatten(0, 1).unsqueeze(1)).sum(3)
        rows: Tensor = mixed.unflatten(0, (len(places), self.heads)).flatten(1, 2).transpose(1, 2)
        return rows
