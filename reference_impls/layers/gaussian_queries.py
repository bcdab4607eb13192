"""The transformer that fits 2-D Gaussians to a map of features (GaussianToken, arXiv 2501.15619, section 3.2).

Learned queries, each with a Gaussian of its own, look at the map around its centre and refine it, in rounds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from reference_impls.layers.deformable import DeformableAttention, cell_centres
from reference_impls.layers.grid_vq import as_grid, as_rows

__all__ = ["GaussianQueries", "Gaussians"]

HEADS, POINTS, GROUPS = 4, 4, 32
STEEPEST = 9.21024
"""Beyond this the sigmoid is cut off, at about 1e-4 and 1 - 1e-4."""
KERNEL = 5


@dataclass(frozen=True, slots=True)
class Gaussians:
    """Gaussians of a batch, with the features that they carry."""

    means: Tensor
    """Centres (x, y) in [-1, 1], `(B, N, 2)`."""
    scales: Tensor
    """Deviations along their own axes, in cells of the map, `(B, N, 2)`."""
    rotations: Tensor
    """Angles in [0, pi], `(B, N, 1)`."""
    features: Tensor
    """`(B, N, C)`."""


def _bounded(logits: Tensor) -> Tensor:
    return logits.clamp(-STEEPEST, STEEPEST).sigmoid()


def _relu_norm(inputs: int, width: int, repeats: int, linears: int) -> list[nn.Module]:
    """`repeats` times: as many linear layers with ReLU, then a norm."""
    parts: list[nn.Module] = []
    for _ in range(repeats):
        for _ in range(linears):
            parts += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        parts.append(nn.LayerNorm(width))
    return parts


def _mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))


def _sine_table(height: int, width: int, channels: int) -> Tensor:
    """DETR's position table `(1, height * width, channels)`: rows, then columns, scaled to one turn from cell centres.

    In float32, as the release computes it whatever it runs in.
    """
    half = channels // 2
    powers = torch.arange(half, dtype=torch.float32).div(2, rounding_mode="floor") * 2 / half
    steps = 10000**powers

    def waves(count: int) -> Tensor:
        places = (torch.arange(1, count + 1, dtype=torch.float32) - 0.5) / (count + 1e-6) * (2 * math.pi)
        angles = places[:, None] / steps
        return torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2).flatten(1)

    rows = waves(height)[:, None].expand(-1, width, -1)
    columns = waves(width)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], dim=2).reshape(1, height * width, -1)


class Scale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """`(..., channels)` to the same shape."""
        return x * self.scale


class MapLayer(nn.Module):
    """Deformable self-attention of a map, then an MLP; each normed behind its sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(width, HEADS, 1, POINTS, fixed_point=True)
        self.norm1 = nn.LayerNorm(width)
        self.mlp = _mlp(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, rows: Tensor, positions: Tensor, places: Tensor, shape: tuple[int, int]) -> Tensor:
        """A map's cells `(B, h*w, width)` to the same shape."""
        seen = self.self_attn(rows + positions, places, [as_grid(rows, *shape)])
        rows = self.norm1(rows + seen)
        out: Tensor = self.norm2(rows + self.mlp(rows))
        return out


class QueryLayer(nn.Module):
    """Self-attention of the queries, deformable attention to the map, MLP; each normed behind its sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn = DeformableAttention(width, HEADS, 1, POINTS, fixed_point=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = _mlp(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, x: Tensor, positions: Tensor, places: Tensor, grid: Tensor) -> Tensor:
        """Queries `(B, N, width)` to the same; their places (x, y) in [0, 1], `(B, N, 2)`."""
        moved = x + positions
        x = self.norm1(x + self.self_attn(moved, moved, x, need_weights=False)[0])
        x = self.norm2(x + self.cross_attn(x + positions, places, [grid]))
        out: Tensor = self.norm3(x + self.mlp(x))
        return out


class QueryStack(nn.Module):
    """Query layers one after the other."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(QueryLayer(width) for _ in range(depth))

    def forward(self, x: Tensor, positions: Tensor, places: Tensor, grid: Tensor) -> Tensor:
        """Queries `(B, N, width)` to the same shape."""
        for layer in self.layers:
            x = layer(x, positions, places, grid)
        return x


class Fusion(nn.Module):
    """Queries after and before a stack, side by side, to one width: a norm, then an MLP beside a linear layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pre_norm_layer = nn.LayerNorm(2 * width)
        self.layers = nn.Sequential(
            nn.Sequential(nn.Linear(2 * width, 4 * width), nn.ReLU()), nn.Linear(4 * width, width)
        )
        self.identity_fc = nn.Linear(2 * width, width)

    def forward(self, after: Tensor, before: Tensor) -> Tensor:
        """Both `(B, N, width)` to one of the same shape."""
        normed = self.pre_norm_layer(torch.cat([after, before], dim=-1))
        out: Tensor = self.identity_fc(normed) + self.layers(normed)
        return out


class ScaleRange(nn.Module):
    """The upper bound of the scales, which shrinks in training and comes with the checkpoint."""

    current_range_max: Tensor

    def __init__(self, largest: float) -> None:
        super().__init__()
        self.register_buffer("current_range_max", torch.tensor(largest))


class Refinement(nn.Module):
    """Queries to new anchors (x, y, rotation, two scales, features; all but the last as logits), and to features."""

    def __init__(self, width: int, channels: int, largest: float) -> None:
        super().__init__()
        anchor = 5 + width
        self.range_scheduler = ScaleRange(largest)
        self.layers = nn.Sequential(*_relu_norm(width, width, 2, 2), nn.Linear(width, anchor), Scale(anchor))
        self.to_features = nn.Sequential(*_relu_norm(width, width, 2, 2), nn.Linear(width, channels), Scale(channels))

    def forward(self, queries: Tensor, anchors: Tensor) -> Tensor:
        """Queries `(B, N, width)` and anchors `(B, N, 5 + width)` to new anchors: only centres are moved on."""
        found: Tensor = self.layers(queries)
        return torch.cat([anchors[..., :2] + found[..., :2], found[..., 2:]], dim=-1)

    def gaussians(self, anchors: Tensor, smallest: float) -> Gaussians:
        """What anchors stand for."""
        # The release fills its first anchors as (xy, scales, rotation) and reads them in this order.
        centres, rotations, scales, features = anchors.split([2, 1, 2, anchors.shape[2] - 5], dim=2)
        span = self.range_scheduler.current_range_max - smallest
        return Gaussians(
            means=2.0 * _bounded(centres) - 1.0,
            scales=smallest + span * _bounded(scales),
            rotations=math.pi * _bounded(rotations),
            features=self.to_features(features),
        )


class AnchorEncoder(nn.Module):
    """Anchors to positions for their queries: each part by itself, then their sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.xy_fc, self.rot_fc, self.scale_fc, self.feature_fc, self.output_fc = (
            nn.Sequential(*_relu_norm(inputs, width, 2, 1)) for inputs in (2, 1, 2, width, width)
        )

    def forward(self, anchors: Tensor) -> Tensor:
        """`(B, N, 5 + width)` to `(B, N, width)`."""
        centres, rotations, scales, features = anchors.split([2, 1, 2, anchors.shape[2] - 5], dim=2)
        total = self.xy_fc(centres) + self.scale_fc(scales) + self.rot_fc(rotations) + self.feature_fc(features)
        out: Tensor = self.output_fc(total)
        return out


class Spare(nn.Module):
    """One more set of a round's parts, with a sparse convolution, that releases hold and never run."""

    grid_size: Tensor

    def __init__(self, width: int, depth: int, channels: int, largest: float, shape: Sequence[int]) -> None:
        super().__init__()
        self.cross_attn, self.ffn = QueryStack(width, depth), Fusion(width)
        self.refine = Refinement(width, channels, largest)
        self.spconv = nn.Module()
        self.spconv.register_buffer("grid_size", torch.tensor([1.0 / side for side in shape]))
        self.spconv.conv = nn.Module()
        self.spconv.conv.weight = nn.Parameter(torch.zeros(width, KERNEL, KERNEL, width))


class GaussianQueries(nn.Module):
    """A map of features to Gaussians.

    Args:
        shape: Height and width of the map.
        width: Its channels, and the queries'.
        channels: Channels of the features that a Gaussian carries.
        count: Number of Gaussians.
        depth: Layers of the map's attention, and of each round's.
        rounds: How often the Gaussians are refined.
        scale_range: Smallest scale, and the largest one before training; in cells of the map.
    """

    positions: Tensor
    places: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        width: int,
        channels: int,
        count: int,
        depth: int,
        rounds: int,
        scale_range: tuple[float, float],
    ) -> None:
        super().__init__()
        self.shape, (self.smallest, largest) = shape, scale_range
        self.input_proj = nn.Sequential(nn.Conv2d(width, width, 1), nn.GroupNorm(GROUPS, width))
        self.attn_encoder = nn.ModuleList(MapLayer(width) for _ in range(depth))
        self.anchor_encoder = AnchorEncoder(width)
        self.anchor = nn.Parameter(torch.randn(count, 5 + width))
        self.instance_feature = nn.Parameter(torch.zeros(count, width))
        parts: list[nn.Module] = []
        for _ in range(rounds):
            parts += [QueryStack(width, depth), Fusion(width), Refinement(width, channels, largest)]
        self.layers = nn.ModuleList(parts)
        self.op_module_map = Spare(width, depth, channels, largest, shape)
        self.register_buffer("positions", _sine_table(*shape, width), persistent=False)
        self.register_buffer("places", cell_centres(*shape), persistent=False)

    def forward(self, grid: Tensor) -> Gaussians:
        """A map `(B, width, h, w)` to Gaussians."""
        rows = as_rows(self.input_proj(grid))
        for layer in self.attn_encoder:
            rows = layer(rows, self.positions.to(rows.dtype), self.places, self.shape)
        grid = as_grid(rows, *self.shape)
        queries, anchors = (table.expand(len(rows), -1, -1) for table in (self.instance_feature, self.anchor))
        for stack, fusion, refinement in zip(self.layers[0::3], self.layers[1::3], self.layers[2::3], strict=True):
            positions = self.anchor_encoder(anchors)
            queries = fusion(stack(queries, positions, _bounded(anchors[..., :2]), grid), queries)
            anchors = refinement(queries + positions, anchors)
        return cast("Refinement", self.layers[-1]).gaussians(anchors, self.smallest)
