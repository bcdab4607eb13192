"""DiffRate: in every block, drop and merge the tokens of least class attention, at rates that were learned."""

from dataclasses import dataclass

from torch import nn

from reference_impls.layers.diffrate_schedules import BUDGETS, searched
from reference_impls.layers.rate_search import RateSearch
from reference_impls.layers.sorted_compression import SortedCompression
from reference_impls.layers.vit_backbone import Backbone, inspect_backbone
from reference_impls.layers.vit_driver import ReducedViT, reducer
from tokenmark.contracts import BudgetError, Knob, Layout, Paper, UnsupportedBackboneError

__all__ = ["METHOD", "DiffRateSettings", "searching"]


@dataclass(frozen=True, slots=True)
class DiffRateSettings:
    """How many tokens each block keeps: a schedule that the authors searched, or one's own."""

    budget: float | None = None
    """Multiply-accumulates of the reduced model, in units of 10^9: takes the dearest schedule of at most that many
    that was searched for a model of this depth, width, number of tokens and pooling. None: the dearest."""
    prune_kept: tuple[int, ...] | None = None
    """In place of `budget`, with `merge_kept`: for each block the tokens that pruning leaves, prefix tokens counted. A
    number above what is left does nothing, so that the numbers act by their running minimum."""
    merge_kept: tuple[int, ...] | None = None
    """The same after merging, which follows pruning in each block."""


class DiffRate(SortedCompression):
    """The numbers of a schedule, applied to tokens that are sorted by class attention."""

    def __init__(self, backbone: Backbone, settings: DiffRateSettings) -> None:
        super().__init__(backbone, *_kept(backbone, settings))


def _kept(backbone: Backbone, settings: DiffRateSettings) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if settings.prune_kept is None and settings.merge_kept is None:
        return searched(backbone, settings.budget)
    if settings.prune_kept is None or settings.merge_kept is None or settings.budget is not None:
        raise BudgetError("give either a budget, or both prune_kept and merge_kept")
    return settings.prune_kept, settings.merge_kept


def searching(model: nn.Module, settings: DiffRateSettings | None = None) -> ReducedViT:
    """A model whose rates can be learned: see `RateSearch`, its `reduction`. In evaluation it follows `settings`.

    Raises:
        UnsupportedBackboneError: the driver does not serve `model`, or it has no class token or pools over tokens in a
            way that knows no masks.
        BudgetError: the settings do not fit the model.
    """
    backbone = inspect_backbone(model)
    pool = getattr(model, "global_pool", "token")
    if not backbone.has_class_token or pool not in {"token", "avg"}:
        raise UnsupportedBackboneError("rates are searched on models with a class token, and of class or mean pooling")
    kept = ((backbone.tokens,) * backbone.depth,) * 2 if settings is None else _kept(backbone, settings)
    reduction = RateSearch(backbone, *kept, whole_last=pool == "avg")
    sample = next(model.parameters())
    return ReducedViT(backbone, reduction.to(sample.device, sample.dtype).train(model.training))


METHOD = reducer(
    DiffRate,
    id="diffrate",
    title="DiffRate",
    idea="Sort tokens by class attention in every block; drop the last and merge the next, as many as was learned.",
    acts="every block, after attention",
    paper=Paper(
        title="DiffRate: Differentiable Compression Rate for Efficient Vision Transformers",
        authors="Chen, Shao, Xu, Lin, Zhang, Chao, Ji, Qiao, Luo",
        year=2023,
        url="https://arxiv.org/abs/2305.17997",
    ),
    settings=DiffRateSettings,
    knob=Knob("budget", BUDGETS),
    layout=Layout(
        renames=((r"^(blocks\.\d+\.(?:prune|merge)_ddp\.)", r"reduction.\1"), (r"^(?!reduction\.)", "model."))
    ),
)
