"""Schedules that are made for a cost: the dearest one of a family that costs no more than a share of the model's."""

from collections.abc import Callable

from reference_impls.layers.families.base import Backbone
from tokenmark.contracts import BlockTokens, BudgetError

__all__ = ["Schedule", "after_blocks", "dearest_within", "left_after"]

Schedule = tuple[BlockTokens, ...]
STEPS = 10_000


def after_blocks(backbone: Backbone, kept: dict[int, int]) -> Schedule:
    """The token counts of every block where `kept` (`{block: patches}`) says how many patches are left after it."""
    schedule, tokens = [], backbone.tokens
    for block in range(backbone.depth):
        schedule.append(BlockTokens(tokens, tokens))
        tokens = backbone.prefix + kept.get(block, tokens - backbone.prefix)
    return tuple(schedule)


def left_after(schedule: Schedule, block: int) -> int:
    """How many tokens go on after `block`; all of the last block's."""
    return schedule[block + 1].attention if block + 1 < len(schedule) else schedule[block].mlp


def dearest_within(
    share: float, backbone: Backbone, make: Callable[[float], Schedule], extra: Callable[[float], int]
) -> float:
    """The least strength, from 0 to 1, that costs no more than `share` of the unreduced model's MACs.

    `make` gives a strength's schedule (of 0: nothing is reduced), `extra` the method's own MACs, which count. Strengths
    are searched by halving, in steps of 1/10000.

    Raises:
        BudgetError: a share outside (0, 1], or less than the schedule of strength 1 costs.
    """
    if not 0 < share <= 1:
        raise BudgetError(f"macs_rate {share} must lie above 0 and not above 1")
    whole = backbone.cost.macs(backbone.unreduced())

    def rate(step: int) -> float:
        return (backbone.cost.macs(make(step / STEPS)) + extra(step / STEPS)) / whole

    if rate(0) <= share:
        return 0.0
    low, high = 0, STEPS  # the first costs too much, the second fits
    if rate(high) > share:
        raise BudgetError(f"macs_rate {share} is less than this method can do here: give {rate(high):.3f} or more")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if rate(middle) <= share else (middle, high)
    return high / STEPS
