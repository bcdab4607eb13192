"""The schedules that DiffRate's authors searched, chosen by model and budget."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from reference_impls.layers.families.base import Backbone
from tokenmark.contracts import BudgetError

__all__ = ["BUDGETS", "Kept", "searched", "tables"]

Kept = tuple[int, ...]
"""Tokens left in every block, prefix tokens included."""
FILE = Path(__file__).with_name("diffrate_schedules.toml")


@cache
def tables() -> dict[str, dict[float, dict[str, Kept]]]:
    """By model and budget (GMAC), from the dearest: `prune` and `merge`, tokens left after pruning and merging."""
    return {
        model: {
            float(budget): {act: tuple(kept) for act, kept in acts.items()}
            for budget, acts in sorted(table.items(), key=_dearest_first)
            if isinstance(acts, dict)
        }
        for model, table in _raw().items()
    }


@cache
def _raw() -> dict[str, dict[str, Any]]:
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def _dearest_first(entry: tuple[str, Any]) -> float:
    return -float(entry[0]) if isinstance(entry[1], dict) else 0.0


BUDGETS = tuple(sorted({budget for name, table in tables().items() if "vit" in name for budget in table}, reverse=True))
"""All budgets that a vision transformer was searched for, in GMAC, from the dearest."""


def searched(backbone: Backbone, budget: float | None) -> tuple[Kept, Kept]:
    """The dearest schedule of at most `budget` GMAC that was searched on a model of this one's shape.

    Gives the tokens left in each block after pruning, and after merging. Models are told by depth, width, tokens and
    pooling: DeiT's read the class token, MAE's the mean. None: the dearest of all.

    Raises:
        BudgetError: no model of this shape was searched, or even its cheapest schedule costs more.
    """
    pool = "mean" if getattr(backbone.model, "global_pool", "token") == "avg" else "class"
    shape = {"depth": backbone.depth, "width": backbone.width, "tokens": backbone.tokens, "pool": pool}
    name = next((name for name, table in _raw().items() if shape.items() <= table.items()), None)
    if name is None:
        raise BudgetError(
            f"no schedule was searched for {backbone.depth} blocks of {backbone.width} channels on {backbone.tokens}"
            f" tokens and a {pool} pool: give prune_kept and merge_kept, the tokens left in each block"
        )
    found = tables()[name]
    for cost, acts in found.items():
        if budget is None or cost <= budget:
            return acts["prune"], acts["merge"]
    raise BudgetError(f"budget {budget} is below all that were searched for {name}: {', '.join(map(str, found))} GMAC")
