"""How many tokens every block removes: r on average, rising or falling with depth, or one number for each."""

from dataclasses import dataclass

from tokenmark.contracts import BudgetError

__all__ = ["PerBlock", "removed_per_block"]


@dataclass(frozen=True, slots=True)
class PerBlock:
    """How many tokens each block merges away."""

    r: int = 8
    """Tokens merged per block, on average over the blocks."""
    inflection: float = 0.0
    """-1 to 1: the first block merges r * (1 - inflection), the last r * (1 + inflection), linear between (each
    truncated). Negative merges more in early blocks; 0 is constant."""
    per_block: tuple[int, ...] | None = None
    """Tokens merged in each block, in place of `r` and `inflection`; blocks beyond it merge none."""


def removed_per_block(settings: PerBlock, depth: int) -> tuple[int, ...]:
    """What the settings ask of every block, before any clipping.

    Raises:
        BudgetError: a negative number, an inflection beyond [-1, 1], or more numbers than blocks.
    """
    if settings.per_block is not None:
        if len(settings.per_block) > depth or min(settings.per_block, default=0) < 0:
            raise BudgetError(f"per_block {settings.per_block} must be at most {depth} numbers, none below 0")
        return settings.per_block + (0,) * (depth - len(settings.per_block))
    if settings.r < 0 or not -1 <= settings.inflection <= 1:
        raise BudgetError(f"r {settings.r} must not be negative, inflection {settings.inflection} be from -1 to 1")
    first = int(settings.r * (1 - settings.inflection))
    step = (2 * settings.r - 2 * first) / max(1, depth - 1)
    return tuple(int(first + step * block) for block in range(depth))
