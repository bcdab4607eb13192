"""CAT Pruning: after some whole steps, only tokens whose noise still changes are computed, a share of every cluster."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from reference_impls.layers.clustering import distances_between, k_means
from reference_impls.layers.dumbbell import Dumbbell
from reference_impls.layers.precision import at_least_float32
from reference_impls.layers.reduction import take
from reference_impls.layers.sampler_hook import Call, Merging, Part, Place, Seen, attach, patch_of
from reference_impls.layers.sampler_merging import SamplerHook
from tokenmark.contracts import BudgetError, DiffusionReducerMethod, Knob, Paper, UnsupportedBackboneError

__all__ = ["METHOD", "CatPruning", "CatSettings", "share_of_each", "shares"]


@dataclass(frozen=True, slots=True)
class CatSettings:
    """What is computed, and how it is chosen; what the paper's abstract and reviews leave open is told so."""

    keep_rate: float = 0.3
    """Tokens that are computed in a pruned step, as a fraction of all: int(tokens * keep_rate)."""
    whole_steps: int = 8
    """Steps that compute all tokens, t0 of the repository's example, of 28."""
    reference: int = 1
    """How many steps before the last whole one the noise is, from which later noise is told to differ (open: with 0,
    as the paper defines it, nothing has changed yet in the first pruned step)."""
    clusters: tuple[int, int] = (4, 4)
    """K-means begins with the tokens in the middle of so many cells of the grid, rows and columns (open)."""
    iterations: int = 5
    """Rounds of K-means in every pruned step (open)."""
    spatial: float = 1.0
    """Weight of a token's place in the clustering, both being 0 to 1, against its change (open)."""
    balance: float = 0.5
    """Share of the time that a token has not been computed in its score, the rest being its change (open)."""

    def __post_init__(self) -> None:
        if not 0 < self.keep_rate <= 1 or not 0 <= self.balance <= 1 or not 0 <= self.spatial < math.inf:
            raise BudgetError(
                f"keep_rate {self.keep_rate} must lie above 0 and not above 1, balance {self.balance} in 0 to 1,"
                f" spatial {self.spatial} not below 0"
            )
        if not 0 <= self.reference < self.whole_steps or min(*self.clusters, self.iterations) < 1:
            raise BudgetError(
                f"reference {self.reference} must be 0 to whole_steps {self.whole_steps}, itself not among them, and"
                f" clusters {self.clusters} and iterations {self.iterations} 1 or more"
            )


class CatPruning(SamplerHook):
    """Tokens that are not computed give the noise that they gave before, and their old keys and values are seen."""

    parts: frozenset[Part] = frozenset({"attention", "cross_attention", "mlp"})

    def __init__(self, settings: CatSettings) -> None:
        super().__init__()
        self.settings = settings
        self.reference: Tensor | None = None
        self.noise: Tensor | None = None
        self.stale: Tensor | None = None
        self.chosen: Tensor | None = None
        self.remembered: dict[tuple[int, str], Tensor] = {}

    def begin(self, call: Call) -> None:
        """Choose, for a pruned step, what is computed."""
        super().begin(call)
        self.chosen = None
        if call.step == 0:
            self.reference = self.noise = self.stale = None
            self.remembered.clear()
        if self._prunes(call.step) and self.noise is not None and self.reference is not None:
            change = self._change(self.noise - self.reference)
            stale = torch.zeros_like(change) if self.stale is None else self.stale
            self.chosen = self._chosen(change, stale)
            self.stale = (stale + 1).scatter(1, self.chosen, torch.zeros_like(change))

    def _prunes(self, step: int) -> bool:
        return step >= self.settings.whole_steps and self.settings.keep_rate < 1

    def _kept(self, tokens: int) -> int:
        return max(1, int(tokens * self.settings.keep_rate))

    def _change(self, noise: Tensor) -> Tensor:
        """The norm of every token's part of `noise` `(B, C, H, W)`, the mean of both halves, `(images, N)`."""
        power = noise[:, : self.call.channels].square().sum(dim=1, keepdim=True)
        norms = avg_pool2d(power, self.call.patch).sqrt().flatten(1) * self.call.patch
        each: Tensor = norms.unflatten(0, (self.call.halves, -1))
        return each.mean(dim=0)

    def _chosen(self, change: Tensor, stale: Tensor) -> Tensor:
        """The tokens `(images, M)` that are computed, rising."""
        grid, weight = self.call.grid, self.settings.spatial
        change, stale = (shares(each) for each in (change, stale))
        rows, columns = (torch.arange(side, device=change.device) / side for side in grid)
        places = torch.cartesian_prod(rows, columns).to(change).expand(change.shape[0], -1, -1)
        points = torch.cat((weight * places, change[..., None]), dim=2)
        begun = _middles(grid, self.settings.clusters).to(change.device).expand(change.shape[0], -1)
        centres = k_means(points, torch.ones_like(change), begun, self.settings.iterations)
        cluster = distances_between(points, centres).argmin(dim=2)
        score = (1 - self.settings.balance) * change + self.settings.balance * stale
        return share_of_each(score, cluster, centres.shape[1], self._kept(change.shape[1]))

    def merge(self, x: Tensor, place: Place) -> Merging | None:
        """In pruned steps the chosen tokens alone; in the last whole one all, whose keys and values are remembered."""
        last = self.call.step == self.settings.whole_steps - 1 and self.settings.keep_rate < 1
        if self.chosen is None:
            everyone = Merging(_same, _same, lambda name, tokens: self._remember(place.block, name, tokens))
            return everyone if last else None
        index = self.both(self.chosen)
        rows = index[..., None].expand(-1, -1, place.width)

        def spread(tokens: Tensor) -> Tensor:
            return tokens.new_zeros(x.shape[0], place.tokens, place.width).scatter(1, rows, tokens)

        def recall(name: str, tokens: Tensor) -> Tensor:
            known = self.remembered[place.block, name].to(tokens.dtype)
            at = index[..., None].expand(-1, -1, tokens.shape[2])
            return self._remember(place.block, name, known.scatter(1, at, tokens))

        return Merging(lambda tokens: take(tokens, index), spread, recall)

    def _remember(self, block: int, name: str, tokens: Tensor) -> Tensor:
        self.remembered[block, name] = tokens
        return tokens

    def finish(self, output: Tensor) -> Tensor:
        """The noise of what was computed, and the old noise of everything else."""
        if self.chosen is not None and self.noise is not None:
            rows, columns = self.call.grid
            computed = output.new_zeros(len(self.chosen), rows * columns).scatter(
                1, self.chosen, output.new_ones(self.chosen.shape)
            )
            map_ = self.both(computed).unflatten(1, (1, rows, columns))
            for side in (2, 3):
                map_ = map_.repeat_interleave(self.call.patch, dim=side)
            output = torch.where(map_ > 0, output, self.noise.to(output.dtype))
        self.noise = at_least_float32(output)
        if self.call.step == self.settings.whole_steps - 1 - self.settings.reference:
            self.reference = self.noise
        if self.call.step == self.call.steps - 1:
            self.remembered.clear()  # keys and values of all blocks are many
        return output

    def seen(self, place: Place, step: int, steps: int) -> Seen:
        """All tokens in whole steps, the kept fraction in others; all are seen. K-means is told with block 0."""
        del steps
        if not self._prunes(step):
            return Seen(place.tokens, place.tokens)
        pairs = place.tokens * self.settings.clusters[0] * self.settings.clusters[1]
        macs = 0 if place.block else 3 * pairs * (self.settings.iterations + 1)
        return Seen(self._kept(place.tokens), place.tokens, macs)


def shares(values: Tensor) -> Tensor:
    """Non-negative `values` `(B, N)` over the largest of each row, 0 where all are."""
    return values / values.amax(dim=1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)


def share_of_each(score: Tensor, cluster: Tensor, clusters: int, count: int) -> Tensor:
    """Of N tokens those `count` that stand highest in their own clusters, `(B, count)` int64, rising.

    A token stands as high as the fraction of its cluster's members that score more: so every cluster gives the same
    share of its members, to a rounding, and the best of them. `score` and `cluster` are `(B, N)`.
    """
    best = score.argsort(dim=1, descending=True, stable=True)
    by_cluster = cluster.gather(1, best).argsort(dim=1, stable=True)
    order = best.gather(1, by_cluster)
    owner = cluster.gather(1, order)
    size = torch.zeros(len(score), clusters, dtype=torch.int64, device=score.device)
    size = size.scatter_add(1, cluster, torch.ones_like(cluster))
    before = size.cumsum(dim=1) - size
    rank = torch.arange(score.shape[1], device=score.device) - before.gather(1, owner)
    height = (rank.to(score.dtype) + 0.5) / size.gather(1, owner)
    stands = torch.zeros_like(height).scatter(1, order, height)
    return stands.argsort(dim=1, stable=True)[:, :count].sort(dim=1).values


def _middles(grid: tuple[int, int], clusters: tuple[int, int]) -> Tensor:
    """The tokens in the middle of so many cells of a grid, `(K,)`."""
    rows, columns = (
        (torch.arange(count) * 2 + 1) * side // (2 * count) for side, count in zip(grid, clusters, strict=True)
    )
    return (rows[:, None] * grid[1] + columns).flatten()


def _same(tokens: Tensor) -> Tensor:
    return tokens


def reduce(network: nn.Module, settings: CatSettings) -> nn.Module:
    """The network with only some tokens computed after its first steps.

    Raises:
        UnsupportedBackboneError: it has no block that is known, or more than transformer blocks on one grid.
    """
    reduced = attach(network, CatPruning(settings))
    if patch_of(network) is None or any(isinstance(module, Dumbbell) for module in network.modules()):
        raise UnsupportedBackboneError(
            f"cat-pruning-reading keeps what single tokens gave: {type(network).__name__} mixes them outside its blocks"
        )
    return reduced


METHOD = DiffusionReducerMethod(
    id="cat-pruning-reading",
    title="CAT Pruning, a reading",
    idea="After whole steps, compute only the tokens whose noise changes or that are stale, a share of every cluster.",
    paper=Paper(
        title="CAT Pruning: Cluster-Aware Token Pruning For Text-to-Image Diffusion Models",
        authors="Cheng, Chen, Jia",
        year=2025,
        url="https://arxiv.org/abs/2502.00433",
    ),
    settings=CatSettings,
    reduce=reduce,
    acts="whole blocks, after the first steps",
    knob=Knob("keep_rate", "rate"),
)
