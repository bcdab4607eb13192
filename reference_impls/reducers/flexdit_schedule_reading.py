"""FlexDiT's schedule: the early steps of a sampler compute on a coarser grid of tokens than the late ones."""

import math
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from reference_impls.generators.sparsedit import METHOD as FLEXDIT
from reference_impls.layers.dumbbell import Dumbbell
from reference_impls.layers.sampler_hook import Merging, Place, Seen, attach
from reference_impls.layers.sampler_merging import SamplerHook, parts_of
from tokenmark.contracts import BudgetError, DiffusionReducerMethod, Knob

__all__ = ["METHOD", "PooledTokens", "ScheduleSettings", "rate_at"]


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    """How dense the tokens are, when, and where; what the paper leaves open is told so."""

    first: float = 0.86
    """The pruning rate, 1 - few / all, of the first quarter of the steps: the densities of table 1 at 512 pixels."""
    last: float = 0.61
    """The rate that it comes to at the end, in a straight line. The paper calls the first rate the least, and says
    that tokens become more: here they do."""
    skip: tuple[int, int] = (2, 2)
    """Blocks at either end of a network that are left alone: FlexDiT keeps all tokens there. Open for other networks,
    which were not trained for it."""
    cross_attention: bool = False
    """Whether attention to the text runs on pooled tokens too (open, as are MLPs)."""
    mlp: bool = False
    """Whether the MLP does."""
    max_downsample: int = 1
    """Blocks whose map is more times smaller than the network's finest are left alone (open)."""

    def __post_init__(self) -> None:
        if not 0 <= self.last <= self.first < 1:
            raise BudgetError(f"rates must fall within 0 to 1, 1 not among them: got {self.first} to {self.last}")
        if min(self.skip) < 0 or self.max_downsample < 1:
            raise BudgetError(f"skip {self.skip} must not be below 0, max_downsample {self.max_downsample} not below 1")


def rate_at(step: int, steps: int, settings: ScheduleSettings) -> float:
    """The timestep-wise pruning rate: the first one for a quarter of the steps, then in a straight line to the last."""
    share = max(0.0, (4 * step - steps) / (3 * steps))
    return settings.first + share * (settings.last - settings.first)


class PooledTokens(SamplerHook):
    """Attention runs on a pooled grid, whose output goes to all tokens of the nearest cell.

    A network of FlexDiT's own, which pools tokens in its dumbbells, is told only how many.
    """

    def __init__(self, settings: ScheduleSettings, *, in_dumbbells: bool) -> None:
        super().__init__()
        self.settings = settings
        self.parts = parts_of(cross_attention=settings.cross_attention, mlp=settings.mlp)
        if in_dumbbells:
            self.parts = frozenset()

    def few(self, grid: tuple[int, int], step: int, steps: int) -> tuple[int, int]:
        """Rows and columns of the pooled grid: the sides, rounded, that leave what the rate says."""
        side = math.sqrt(1 - rate_at(step, steps, self.settings))
        return max(1, round(grid[0] * side)), max(1, round(grid[1] * side))

    def merge(self, x: Tensor, place: Place) -> Merging | None:
        """Pool the tokens of a block in the middle."""
        del x
        few = self._few_of(place, self.call.step, self.call.steps)
        if few == place.grid:
            return None
        return Merging(partial(_pooled, place.grid, few), partial(_spread, few, place.grid))

    def pooled(self, side: int, x: Tensor) -> Tensor:
        """What a dumbbell begins with: `x` `(B, side * side, C)` on the pooled grid."""
        return _pooled((side, side), self.few((side, side), self.call.step, self.call.steps), x)

    def _few_of(self, place: Place, step: int, steps: int) -> tuple[int, int]:
        inside = self.settings.skip[0] <= place.block < place.blocks - self.settings.skip[1]
        acts = inside and place.smaller <= self.settings.max_downsample
        return self.few(place.grid, step, steps) if acts else place.grid

    def seen(self, place: Place, step: int, steps: int) -> Seen:
        """What the schedule leaves."""
        rows, columns = self._few_of(place, step, steps) if self.parts else place.grid
        return Seen(rows * columns, rows * columns)


def _pooled(grid: tuple[int, int], few: tuple[int, int], x: Tensor) -> Tensor:
    cells = adaptive_avg_pool2d(x.transpose(1, 2).unflatten(2, grid), few)
    return cells.flatten(2).transpose(1, 2)


def _spread(few: tuple[int, int], grid: tuple[int, int], x: Tensor) -> Tensor:
    cells = interpolate(x.transpose(1, 2).unflatten(2, few), size=grid, mode="nearest")
    return cells.flatten(2).transpose(1, 2)


def reduce(network: nn.Module, settings: ScheduleSettings) -> nn.Module:
    """The network with tokens pooled by the schedule: FlexDiT's in its dumbbells, others' around attention.

    Raises:
        UnsupportedBackboneError: it has no block that is known.
    """
    own = any(isinstance(module, Dumbbell) for module in network.modules())
    hook = PooledTokens(settings, in_dumbbells=own)
    reduced = attach(network, hook)
    for module in reduced.modules():
        if isinstance(module, Dumbbell):
            setattr(module, "pooled", partial(hook.pooled, module.grid))  # noqa: B010  in place of the class's
    return reduced


METHOD = DiffusionReducerMethod(
    id="flexdit-schedule-reading",
    title="FlexDiT's schedule, a reading",
    idea="Pool tokens to a coarse grid in a sampler's early steps, and to finer and finer ones in its late steps.",
    paper=FLEXDIT.paper,
    settings=ScheduleSettings,
    reduce=reduce,
    acts="dumbbells of FlexDiT; of others the blocks in the middle, around attention",
    knob=Knob("first", (0.61, 0.7, 0.8, 0.86, 0.9, 0.96)),
)
