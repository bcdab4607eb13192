"""The table of `tokenmark cost`: a budget, the setting that fits it, and the tokens and MACs of every block."""

from collections.abc import Iterable

from pydantic import JsonValue
from rich import box
from rich.markup import escape
from rich.table import Table

from tokenmark import backbones, budgets, speedsuite
from tokenmark.budgets import Cost
from tokenmark.errors import SuiteError
from tokenmark.terminal import console


def print_cost(
    model: str, method: str, given: Iterable[str], macs: str | None, keep: float | None, like: str | None
) -> None:
    """Print what `method` costs on `model`.

    Raises:
        SuiteError: more than one budget, or one that is not of its form.
        BudgetError: a budget that the method cannot meet.
        UnknownNameError: no such model, method or setting.
    """
    name = backbones.drawn(model)
    settings = speedsuite.settings_of([f"{method}.{text}" for text in given], [method]).get(method, {})
    asked = [text for text in (macs, like, None if keep is None else f"{keep:g}") if text is not None]
    if len(asked) > 1:
        raise SuiteError("one budget at a time: give --macs, --keep or --like")
    if macs is not None:
        found = budgets.fit(method, name, settings, macs)
    elif keep is not None:
        found = budgets.fit_tokens(method, name, settings, keep)
    elif like is not None:
        found = budgets.fit(method, name, settings, f"{_like(like, name).total}")
    else:
        found = budgets.cost(method, name, {**budgets.usual(method, name), **settings})
    _print(model, method, found)


def _like(text: str, model: str) -> Cost:
    """What another method costs, of `method:setting=value`."""
    method, colon, setting = text.partition(":")
    if not colon:
        raise SuiteError(f"--like {text}: write METHOD:SETTING=VALUE, as in topk:keep_rate=0.7")
    settings: dict[str, JsonValue] = speedsuite.settings_of([f"{method}.{setting}"], [method])[method]
    return budgets.cost(method, model, {**budgets.usual(method, model), **settings})


def _print(model: str, method: str, found: Cost) -> None:
    out = console()
    words = ", ".join(f"{key} = {value}" for key, value in found.settings.items()) or "no settings"
    out.print(f"[bold]{escape(method)}[/] on {escape(model)}: {escape(words)}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("block", "tokens into attention", "tokens into MLP", "kept %"):
        table.add_column(title, justify="right")
    for place, block in enumerate(found.schedule):
        share = f"{100 * block.mlp / found.tokens:.1f}"
        table.add_row(str(place), str(block.attention), str(block.mlp), share)
    out.print(table)
    out.print(f"model    {budgets.shown(found.macs)} MACs of {budgets.shown(found.full)}", end="")
    out.print(f" unreduced ({100 * found.macs / found.full:.1f} %), as papers count")
    out.print(f"method   {budgets.shown(found.method)} MACs of its own ({100 * found.method / found.full:.2f} %)")
    out.print(f"together {budgets.shown(found.total)} MACs per image")
    if found.adaptive:
        out.print("Images keep different numbers of tokens: these are the most, a run measures the mean.")
