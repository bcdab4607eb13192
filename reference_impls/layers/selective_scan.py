"""Mamba's selective scan over a grid, along four paths (VMamba, arXiv 2401.10166; Mamba, arXiv 2312.00752)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from reference_impls.layers.precision import at_least_float32

__all__ = ["SelectiveScan2d", "linear_recurrence", "one_by_one", "snake_paths"]

CHUNK = 16
"""Places that are scanned one after the other; whole chunks are scanned side by side."""
PATHS = 4


def linear_recurrence(decay: Tensor, new: Tensor) -> Tensor:
    """The states `h_t = decay_t h_(t - 1) + new_t`, from nothing, of `(B, L, ...)` each: the same shape.

    Chunks are scanned side by side, as if each began with nothing. What the chunks before hand on is a recurrence over
    chunks, solved in the same way. So about 16 log_16 L steps follow one another, in place of L; and as decays
    only ever get multiplied, nothing overflows that does not overflow step by step.
    """
    length = decay.shape[1]
    if length <= 2 * CHUNK:
        return one_by_one(decay, new)
    if rest := -length % CHUNK:  # places behind the end, which nothing reads
        decay, new = (torch.cat([part, torch.zeros_like(part[:, :rest])], dim=1) for part in (decay, new))
    decay, new = (part.unflatten(1, (-1, CHUNK)) for part in (decay, new))
    apart = one_by_one(decay.flatten(0, 1), new.flatten(0, 1)).unflatten(0, decay.shape[:2])
    through = decay.cumprod(dim=2)
    ends = linear_recurrence(through[:, :, -1], apart[:, :, -1])
    before = torch.cat([torch.zeros_like(ends[:, :1]), ends[:, :-1]], dim=1)
    states: Tensor = apart + through * before.unsqueeze(2)
    return states.flatten(1, 2)[:, :length]


def one_by_one(decay: Tensor, new: Tensor) -> Tensor:
    """The same states as `linear_recurrence` gives, each from the one before it."""
    states = [new[:, 0]]
    for place in range(1, decay.shape[1]):
        states.append(decay[:, place] * states[-1] + new[:, place])
    return torch.stack(states, dim=1)


def snake_paths(side: int) -> Tensor:
    """Four ways through a grid's cells, each of neighbours only: int64 `(4, side * side)`, places in row-major order.

    Along the rows from the top and from the bottom, along the columns from the left and from the right, every other
    one backwards; columns begin at the bottom.
    """
    grid = torch.arange(side**2).unflatten(0, (side, side))
    upwards = grid.flip(0)
    backwards = (torch.arange(side) % 2 == 1)[:, None]
    lines = (grid, upwards, upwards.T, upwards.flip(1).T)
    return torch.stack([torch.where(backwards, each.flip(1), each).flatten() for each in lines])


class SelectiveScan2d(nn.Module):
    """A map gated by what a selective scan along `snake_paths` makes of it; keys are those of VMamba's SS2D.

    Args:
        width: Channels of the map.
        side: Its height and width.
        ratio: Channels of the scan over those of the map.
        states: Numbers that a channel remembers, N.
    """

    paths: Tensor
    places: Tensor

    def __init__(self, width: int, side: int, *, ratio: float = 2.0, states: int = 1) -> None:
        super().__init__()
        inner, rank = int(ratio * width), math.ceil(width / 16)
        self.parts = (rank, states, states)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        bound, spread = inner**-0.5, rank**-0.5
        self.x_proj_weight = nn.Parameter(torch.empty(PATHS, sum(self.parts), inner).uniform_(-bound, bound))
        self.dt_projs_weight = nn.Parameter(torch.empty(PATHS, inner, rank).uniform_(-spread, spread))
        # Steps begin between 0.001 and 0.1 (Mamba, section 3.6): this is softplus, inverted.
        steps = torch.exp(torch.empty(PATHS, inner).uniform_(math.log(1e-3), math.log(1e-1)))
        self.dt_projs_bias = nn.Parameter(steps + torch.log(-torch.expm1(-steps)))
        decays = torch.arange(1, states + 1, dtype=torch.float32).log()
        self.A_logs = nn.Parameter(decays.repeat(PATHS * inner, 1))
        self.Ds = nn.Parameter(torch.ones(PATHS * inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, width, bias=False)
        paths = snake_paths(side)
        self.register_buffer("paths", paths, persistent=False)
        # Where in the four scans, one behind the other, each place of the map is.
        offsets = side**2 * torch.arange(PATHS)[:, None]
        self.register_buffer("places", paths.argsort(dim=1) + offsets, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Of maps `(B, H, W, C)` the next."""
        inner, gate = self.in_proj(x).chunk(2, dim=-1)
        inner = functional.silu(self.conv2d(inner.permute(0, 3, 1, 2))).permute(0, 2, 3, 1).flatten(1, 2)
        mixed = self.out_norm(self.scan(inner).to(gate.dtype)).unflatten(1, x.shape[1:3])
        out: Tensor = self.out_proj(mixed * functional.silu(gate))
        return out

    def scan(self, inner: Tensor) -> Tensor:
        """What the four scans of `(B, L, D)` give at every place, added up: the same shape, float32 at least."""
        rows = inner[:, self.paths]  # (B, 4, L, D)
        steps, inwards, outwards = (rows @ self.x_proj_weight.mT).split(self.parts, dim=-1)
        steps = at_least_float32(steps @ self.dt_projs_weight.mT) + self.dt_projs_bias[:, None]
        steps = functional.softplus(steps).unsqueeze(-1)
        rates = -at_least_float32(self.A_logs).exp().reshape(PATHS, 1, *self.dt_projs_bias.shape[1:], -1)
        new = steps * (rows.unsqueeze(-1) * inwards.unsqueeze(-2))
        states = linear_recurrence((steps * rates).exp().flatten(0, 1), new.flatten(0, 1))
        read: Tensor = (states.unflatten(0, rows.shape[:2]) * outwards.unsqueeze(-2)).sum(-1)
        # A place has the same number on every path, so that what passes by the states is added once for all four.
        passing = at_least_float32(inner) * self.Ds.unflatten(0, (PATHS, -1)).sum(0)
        out: Tensor = read.flatten(1, 2)[:, self.places].sum(1) + passing
        return out
