"""Importance-based merging: tokens that guidance moves stay, the others are merged into some of them."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from reference_impls.layers.clustering import distances_between
from reference_impls.layers.grid_matching import grid_matching, sources_of
from reference_impls.layers.matching import cosines
from reference_impls.layers.reduction import Matching
from reference_impls.layers.sampler_hook import Call, Merging, Place, Seen, attach
from reference_impls.layers.sampler_merging import SamplerHook, joined, merging_ratio, parts_of
from tokenmark.contracts import BudgetError, DiffusionReducerMethod, Knob, MethodError, Paper

__all__ = ["METHOD", "PIXART", "ImportanceMerging", "ImportanceSettings"]

FIRST = 1e5
"""What sources outside the pool are ranked by more than those in it: they are merged before all of these."""


@dataclass(frozen=True, slots=True)
class ImportanceSettings:
    """What its authors' repository leaves to choose, as its demonstration of Stable Diffusion 2 sets it."""

    ratio: float = 0.7
    """Merged in a block, as a fraction of its tokens: int(tokens * ratio) of them."""
    destinations: float = 0.25
    """How many tokens are destinations, as a fraction of all: int(tokens * destinations), drawn from the pool."""
    pool: float = 1.4
    """The pool's size over the tokens that are left: the int(left * pool) most important ones, all at most."""
    metric: Literal["tokens", "positions"] = "tokens"
    """What is similar: the tokens that enter the block, by their cosine, or near places in the grid."""
    jitter: float = 0.0
    """Uniform noise on what sources are ranked by, up to this: equal distances of places are many."""
    important_from: int = 2
    """The first step that asks for importance, which the step before gives; earlier ones match as ToMe does."""
    merge_from: int = 2
    """The first step whose tokens are merged; in earlier ones those to be merged are left out."""
    cell: tuple[int, int] = (2, 2)
    """Of the earlier steps' matching: one token of each cell is a destination."""
    blocks: tuple[int, int] | None = None
    """The first block that merges, and the first after it that does not; None: all."""
    max_downsample: int = 1
    """Blocks whose map is more times smaller than the network's finest are left alone."""
    cross_attention: bool = False
    """Whether attention to the text runs on merged tokens too."""
    mlp: bool = False
    """Whether the MLP does."""
    seed: int = 0
    """Of the draw, with each image's own."""

    def __post_init__(self) -> None:
        if not 0 < self.destinations < 1 or self.pool <= 0 or self.jitter < 0:
            raise BudgetError(
                f"destinations {self.destinations} must lie in 0 to 1, pool {self.pool} above 0, and jitter"
                f" {self.jitter} not below 0"
            )
        if self.metric not in ("tokens", "positions"):
            raise BudgetError(f"metric must be tokens or positions, got '{self.metric}'")
        if self.important_from < 1 or self.merge_from < 0 or self.max_downsample < 1 or min(self.cell) < 1:
            raise BudgetError("important_from, max_downsample and cell must be 1 or more, merge_from not below 0")
        merging_ratio(self.ratio, self.destinations)
        merging_ratio(self.ratio, 1 / (self.cell[0] * self.cell[1]))
        if (1 - self.ratio) * min(self.pool, 1 / (1 - self.ratio)) < self.destinations:
            raise BudgetError(f"a pool of {self.pool} times the tokens left does not hold {self.destinations} of all")


PIXART = ImportanceSettings(
    ratio=0.5,
    pool=1.0,
    metric="positions",
    jitter=1e-5,
    important_from=1,
    merge_from=4,
    blocks=(7, 21),
    cross_attention=True,
)
"""As its demonstration of PixArt-alpha sets them, over 20 steps of 28 blocks."""


class ImportanceMerging(SamplerHook):
    """Destinations are drawn from the tokens that guidance moves most; what lies outside is merged first."""

    def __init__(self, settings: ImportanceSettings) -> None:
        super().__init__(settings.seed)
        self.settings = settings
        self.parts = parts_of(cross_attention=settings.cross_attention, mlp=settings.mlp)

    def begin(self, call: Call) -> None:
        """Remember the call.

        Raises:
            MethodError: nothing is guided, so that there is no importance.
        """
        super().begin(call)
        if call.halves == 1 and call.seeds and self.settings.ratio:
            raise MethodError("importance-merging needs guidance: importance is the difference of the guided halves")

    def merge(self, x: Tensor, place: Place) -> Merging | None:
        """Match the tokens that enter the block."""
        r, settings = self._merged(place), self.settings
        if not r:
            return None
        difference = self.call.difference if self.call.step >= settings.important_from else None
        if difference is None:
            matching = self.matched(x, place, r, settings.cell)
        else:
            matching = self._important(x, place, r, difference)
        return joined(matching, mean=self.call.step >= settings.merge_from)

    def _important(self, x: Tensor, place: Place, r: int, difference: Tensor) -> Matching:
        counts, tokens = self._counts(place, r), place.tokens
        map_ = difference.abs().mean(dim=1, keepdim=True)
        importance = interpolate(map_, size=place.grid, mode="area").flatten(1)
        pool = importance.argsort(dim=1, descending=True, stable=True)[:, : counts[0]]
        drawn = self.uniform("destinations", counts[0]).argsort(dim=1)[:, : counts[1]]
        destinations = pool.gather(1, drawn).sort(dim=1).values
        least = importance.gather(1, pool[:, -1:])
        bonus = FIRST * (importance < least)
        if self.settings.jitter:
            bonus = bonus + self.settings.jitter * self.uniform("jitter", tokens)
        sources = sources_of(tokens, destinations)
        indices = (self.both(sources), self.both(destinations))
        if self.settings.metric == "tokens":
            return grid_matching(x, *indices, r, self.both(bonus), cosines)
        return grid_matching(_places(place, x), *indices, r, self.both(bonus), _nearness)

    def _counts(self, place: Place, r: int) -> tuple[int, int]:
        """Tokens of the pool, and destinations among them."""
        return (
            min(int((place.tokens - r) * self.settings.pool), place.tokens),
            int(place.tokens * self.settings.destinations),
        )

    def _merged(self, place: Place) -> int:
        first, end = self.settings.blocks or (0, place.blocks)
        acts = first <= place.block < end and place.smaller <= self.settings.max_downsample
        return int(place.tokens * self.settings.ratio) if acts else 0

    def seen(self, place: Place, step: int, steps: int) -> Seen:
        """The same number at every step, for another price before importance is known."""
        del steps
        r, cell = self._merged(place), self.settings.cell
        if not r:
            return Seen(place.tokens, place.tokens)
        left, width, kept = place.tokens - r, place.width, self._counts(place, r)[1]
        if step < self.settings.important_from:
            kept = (place.grid[0] // cell[0]) * (place.grid[1] // cell[1])
        elif self.settings.metric == "positions":
            width = 2
        return Seen(left, left, (place.tokens - kept) * kept * width)


def _places(place: Place, x: Tensor) -> Tensor:
    """Row and column of every token, `(B, N, 2)`."""
    rows, columns = (torch.arange(side, device=x.device, dtype=torch.float32) for side in place.grid)
    return torch.cartesian_prod(rows, columns).expand(x.shape[0], -1, -1)


def _nearness(sources: Tensor, destinations: Tensor) -> Tensor:
    return -distances_between(sources, destinations)


def reduce(network: nn.Module, settings: ImportanceSettings) -> nn.Module:
    """The network with unimportant tokens merged around its attention.

    Raises:
        UnsupportedBackboneError: it has no block that is known.
    """
    return attach(network, ImportanceMerging(settings))


METHOD = DiffusionReducerMethod(
    id="importance-merging",
    title="Importance-based token merging",
    idea="Merge tokens that guidance hardly moves into some of those that it moves most, for attention alone.",
    paper=Paper(
        title="Importance-Based Token Merging for Efficient Image and Video Generation",
        authors="Wu, Xu, Le, Samaras",
        year=2025,
        url="https://arxiv.org/abs/2411.16720",
    ),
    settings=ImportanceSettings,
    reduce=reduce,
    acts="every block of the finest map, around attention",
    knob=Knob("ratio", (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)),
)
