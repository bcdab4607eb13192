"""Tokens that look at an image through boxes of their own (SparseFormer, arXiv 2304.03768, 2312.01987).

Boxes are `(B, T, 4)`: left, top, right and bottom, 0 to 1 across the image, in float32 or wider.
"""

import math
from functools import partial
from typing import Any, cast

import torch
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import gelu, grid_sample, layer_norm, max_pool2d, relu

from reference_impls.layers.precision import at_least_float32

__all__ = ["EPS", "BoxCode", "FocusingUnit", "PixelStem", "SampleAndMix", "first_boxes", "moved", "points_in"]

EPS = 1e-5
POINTS, CHANNELS, MIXED, HIDDEN = 16, 64, 32, 128
"""Points that a token samples, channels of the image's features, points after mixing, width before the generator."""


class PixelStem(nn.Module):
    """A 7x7 convolution and a pooling, to a quarter of the image's sides, normalised over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, CHANNELS, 7, stride=2, padding=3)

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, 3, H, W)` to features `(B, 64, H / 4, W / 4)`, float32 or wider."""
        features = max_pool2d(relu(self.conv(images)), 3, stride=2, padding=1)
        return layer_norm(at_least_float32(features).movedim(1, -1), (CHANNELS,), eps=EPS).movedim(-1, 1)


class SampleAndMix(nn.Module):
    """Lets every token sample points in its box, and mix what it finds by weights that it generates itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_offsets, self.offsets = nn.LayerNorm(width, eps=EPS), nn.Linear(width, 2 * POINTS)
        self.norm_weights = nn.LayerNorm(width, eps=EPS)
        self.narrow, self.weights = nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, CHANNELS**2 + POINTS * MIXED)
        self.out = nn.Linear(MIXED * CHANNELS, width)
        with torch.no_grad():  # a square of points, little moved by the token
            self.offsets.weight.mul_(0.1)
            steps = torch.linspace(-1, 1, math.isqrt(POINTS))
            self.offsets.bias.copy_(torch.cartesian_prod(steps, steps).flatten())

    def forward(self, tokens: Tensor, boxes: Tensor, features: Tensor) -> Tensor:
        """Tokens `(B, T, C)` with what their boxes show of `features` `(B, 64, h, w)` added."""
        offsets = self.offsets(self.norm_offsets(tokens)).unflatten(2, (POINTS, 2))
        grid = 2 * points_in(boxes, at_least_float32(offsets)) - 1
        found = grid_sample(features, grid.to(features.dtype), padding_mode="border", align_corners=False)
        found = found.permute(0, 2, 3, 1).to(tokens.dtype)
        made = self.weights(self.narrow(self.norm_weights(tokens)))
        channels, points = made.split((CHANNELS**2, POINTS * MIXED), dim=2)
        mixed = found @ channels.unflatten(2, (CHANNELS, CHANNELS)).to(found.dtype)
        mixed = gelu(points.unflatten(2, (MIXED, POINTS)).to(mixed.dtype) @ mixed)
        return cast("Tensor", tokens + self.out(mixed.flatten(2)))


class BoxCode(nn.Module):
    """What a box says to its token: sines and cosines of its sides at frequencies from 1 to 128, normed, projected."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(0, 7, width // 8, base=2), persistent=False)
        self.norm, self.linear = nn.LayerNorm(width // 8 * 8, eps=EPS), nn.Linear(width // 8 * 8, width)

    def forward(self, boxes: Tensor) -> Tensor:
        """Boxes `(B, T, 4)` to `(B, T, C)`."""
        angles = math.pi * boxes[..., None] * self.frequencies.to(boxes.dtype)
        code = torch.cat((angles.sin(), angles.cos()), dim=-1).flatten(2)
        return cast("Tensor", self.linear(self.norm(code.to(self.linear.weight.dtype))))


class FocusingUnit(nn.Module):
    """Sample and mix, add the boxes' codes, attention and MLP, then move the boxes; run several times."""

    def __init__(self, width: int) -> None:
        super().__init__()
        norm: Any = partial(nn.LayerNorm, eps=EPS)
        self.look, self.code = SampleAndMix(width), BoxCode(width)
        self.block = Block(width, width // 64 or 1, qkv_bias=True, norm_layer=norm)
        self.norm, self.move = norm(width), Mlp(width, width, 4)
        with torch.no_grad():  # boxes move little at first
            for value in self.move.fc2.parameters():
                value.mul_(0.1)

    def forward(self, tokens: Tensor, boxes: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens `(B, T, C)` and their boxes, after one look."""
        tokens = self.block(self.look(tokens, boxes, features) + self.code(boxes))
        return tokens, moved(boxes, at_least_float32(self.move(self.norm(tokens))))


def first_boxes(tokens: int) -> Tensor:
    """The boxes that training starts from, `(tokens, 4)`: a square grid of half-size ones, the rest the whole image."""
    side = math.isqrt(tokens)
    corner = torch.linspace(0, 0.5, side) if side > 1 else torch.tensor([0.25])
    top, left = torch.meshgrid(corner, corner, indexing="ij")
    corners = torch.stack((left, top), dim=-1).flatten(0, 1)
    grid = torch.cat((corners, corners + 0.5), dim=1)
    return torch.cat((grid, torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(tokens - side * side, -1)))


def points_in(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Where `offsets` `(B, T, 16, 2)` lie in a token's box: about its centre, their deviation a third of its size."""
    offsets = offsets - offsets.mean(dim=2, keepdim=True)
    squares = offsets.square().sum(dim=2, keepdim=True) / (offsets.shape[2] - 1)
    offsets = offsets / (3 * squares.clamp(min=torch.finfo(offsets.dtype).tiny).sqrt())
    start, end = boxes[:, :, None, :2], boxes[:, :, None, 2:]
    return (start + end) / 2 + offsets * (end - start)


def moved(boxes: Tensor, step: Tensor) -> Tensor:
    """Boxes whose centres go by `step[..., :2]` of their size, and whose size grows by exp(`step[..., 2:]`)."""
    start, end = boxes[..., :2], boxes[..., 2:]
    size = end - start
    centre, half = (start + end) / 2 + step[..., :2] * size, size * step[..., 2:].exp() / 2
    return torch.cat((centre - half, centre + half), dim=-1)
