"""Merging within a grid, to be undone (Bolya and Hoffman, "Token Merging for Fast Stable Diffusion", 2023, section 4).

One token of every cell of the grid is a destination; all others are sources, of which the most similar are merged.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from reference_impls.layers.matching import cosines
from reference_impls.layers.reduction import Matching, take

__all__ = ["grid_destinations", "grid_matching", "layer_grid", "sources_of", "unmerge"]


def grid_destinations(grid: tuple[int, int], cell: tuple[int, int], choice: Tensor | None = None) -> Tensor:
    """Positions of one token of every whole cell of a grid, rising, `(cells,)` int64; both are (rows, columns).

    `choice`, in [0, 1), a number for every cell in rows, picks the token within it, counted row by row; without it,
    the top left one. `(B, down, across)` choices give `(B, cells)`. What cells do not cover, on the right and below,
    is never a destination.
    """
    down, across = grid[0] // cell[0], grid[1] // cell[1]
    inner = torch.zeros(down, across, dtype=torch.int64)
    if choice is not None:
        inner = (choice * (cell[0] * cell[1])).long()
    rows = torch.arange(down, device=inner.device)[:, None] * cell[0] + inner // cell[1]
    columns = torch.arange(across, device=inner.device) * cell[1] + inner % cell[1]
    return (rows * grid[1] + columns).flatten(-2).sort(dim=-1).values


def sources_of(tokens: int, destinations: Tensor) -> Tensor:
    """The positions among `tokens` that are none of `destinations` `(..., D)`, rising, `(..., tokens - D)`."""
    ones = torch.ones_like(destinations)
    taken = ones.new_zeros(*destinations.shape[:-1], tokens).scatter(-1, destinations, ones)
    return taken.argsort(dim=-1, stable=True)[..., : tokens - destinations.shape[-1]]


def grid_matching(
    metric: Tensor,
    sources: Tensor,
    destinations: Tensor,
    r: int,
    bonus: Tensor | None = None,
    similarity: Callable[[Tensor, Tensor], Tensor] = cosines,
) -> Matching:
    """Merge the `r` sources that are most similar to a destination into it.

    `sources` `(S,)` and `destinations` `(D,)`, or `(B, S)` and `(B, D)`, share out the N positions of `metric`
    `(B, N, C)`. Output order: the sources that stay, in falling similarity, then the destinations. Of equal
    similarities the earlier position goes first. `bonus` `(B, N)` is added to what a source is ranked by, though not to
    what it chooses its destination by. 0 <= r <= sources.
    """
    sources, destinations = (index.expand(metric.shape[0], -1) for index in (sources, destinations))
    best, partner = similarity(take(metric, sources), take(metric, destinations)).max(dim=2)
    if bonus is not None:
        best = best + bonus.gather(1, sources)
    order = best.argsort(dim=1, descending=True, stable=True)
    merged, stays = order[:, :r], order[:, r:]
    return Matching(
        kept=torch.cat((sources.gather(1, stays), destinations), dim=1),
        merged=sources.gather(1, merged),
        into=sources.shape[1] - r + partner.gather(1, merged),
    )


def unmerge(x: Tensor, matching: Matching) -> Tensor:
    """Of merged tokens `(B, N - r, C)` all N again: each gets back the token that it was merged into."""
    kept, merged = matching.kept, matching.merged
    order = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    places = kept.new_zeros(kept.shape[0], kept.shape[1] + merged.shape[1])
    places = places.scatter(1, kept, order).scatter(1, merged, matching.into)
    return take(x, places)


def layer_grid(latent: tuple[int, int], tokens: int, max_downsample: int) -> tuple[int, int] | None:
    """Rows and columns of the `tokens` of one layer of a diffusion U-Net over latents of that height and width.

    None where the layer's map is more than `max_downsample` times smaller: such layers are left alone.
    """
    smaller = math.ceil(math.sqrt(latent[0] * latent[1] // tokens))
    return None if smaller > max_downsample else (math.ceil(latent[0] / smaller), math.ceil(latent[1] / smaller))
