"""What a reducer's settings cost, and which setting fits a budget; settings for a model of any depth."""

import dataclasses
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from pydantic import JsonValue
from torch import nn

from tokenmark import backbones, build, registry
from tokenmark.contracts import BlockTokens, BudgetError, ReducedModel, ReducerMethod, UnsupportedBackboneError
from tokenmark.errors import SuiteError

UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}
SHOWN = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMG%]?)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one setting of a reducer costs on a model, per image."""

    settings: dict[str, JsonValue]
    macs: int
    """Of the model, by the formula that papers print."""
    method: int
    """Of what the method computes beside the model."""
    full: int
    """Of the unreduced model."""
    schedule: tuple[BlockTokens, ...]
    tokens: int
    """That enter the unreduced model's first block, prefix tokens included."""
    adaptive: bool
    """Whether images keep different numbers of tokens: then these are the most."""

    @property
    def total(self) -> int:
        """Of the model and the method together; a budget is held to this."""
        return self.macs + self.method


def parse(text: str) -> tuple[float, bool]:
    """A budget's number, and whether it is a share: `3.0G` and `450M` are MACs, `60%` a share of the unreduced model's.

    Raises:
        SuiteError: it is not of that form, or nothing.
    """
    found = SHOWN.fullmatch(text)
    if found is None or float(found[1]) == 0:
        raise SuiteError(f"budget '{text}' is none: write MACs as 3.0G or 450M, or a share of the model's as 60%")
    unit = found[2].upper()
    return (float(found[1]) / 100, True) if unit == "%" else (float(found[1]) * UNITS[unit], False)


@functools.lru_cache(maxsize=8)
def architecture(model: str) -> nn.Module:
    """The model without weights."""
    with torch.device("meta"):
        return backbones.get(model).build().eval()


@functools.lru_cache(maxsize=8)
def _unreduced(model: str) -> ReducedModel:
    """The model with all its tokens, as the reducers' driver runs it."""
    return build.reduced("none", architecture(model), {})


def cost(method: str, model: str, settings: Mapping[str, JsonValue]) -> Cost:
    """What a setting costs, without weights and without running anything.

    Raises:
        UnknownNameError: no such method, model or setting.
        BudgetError: the settings are impossible on this model.
        UnsupportedBackboneError: the reducers' driver does not serve the model.
    """
    found, full = build.reduced(method, architecture(model), settings), _unreduced(model)
    macs = found.cost.macs(found.schedule)
    whole, tokens = full.cost.macs(full.schedule), full.schedule[0].attention
    return Cost(dict(settings), macs, found.extra_macs, whole, found.schedule, tokens, found.adaptive)


def fit(method: str, model: str, settings: Mapping[str, JsonValue], budget: str) -> Cost:
    """The dearest setting of a method's knob that costs no more than `budget`; the other settings are as given.

    Stages are where `usual` puts them, unless the settings say where.

    Raises:
        BudgetError: the method has no knob, or its cost depends on the image, or even its cheapest setting costs more,
            or the unreduced model costs less.
        SuiteError: the budget is not of a known form.
    """
    found = registry.get_as(ReducerMethod, method)
    number, share = parse(budget)
    unreduced = _unreduced(model).cost.macs(_unreduced(model).schedule)
    most = number * unreduced if share else number
    if most >= unreduced:
        raise BudgetError(f"{model} costs {shown(unreduced)} unreduced: a budget of {budget} leaves nothing to reduce")
    return _dearest(found, model, settings, most, f"a budget of {budget}", lambda each: each.total)


def fit_tokens(method: str, model: str, settings: Mapping[str, JsonValue], share: float) -> Cost:
    """The dearest setting of a method's knob that leaves at most `share` of the patch tokens after the last block.

    Raises:
        BudgetError: as `fit`, or a share that is not above 0 and below 1.
    """
    if not 0 < share < 1:
        raise BudgetError(f"a share of {share:g} of the patches must lie above 0 and below 1")
    found = registry.get_as(ReducerMethod, method)
    prefix = _unreduced(model).schedule[0].attention - patches_of(model)
    most = share * patches_of(model)
    return _dearest(found, model, settings, most, f"{share:g} of the patches", lambda c: c.schedule[-1].mlp - prefix)


def _dearest(
    method: ReducerMethod, model: str, settings: Mapping[str, JsonValue], most: float, what: str, measure: Any
) -> Cost:
    """The first of the knob's values, from the dearest on, whose `measure` is at most `most`."""
    values = _values(method, model)
    stages = {key: value for key, value in usual(method.id, model).items() if key == "blocks"}
    settings = {**stages, **settings}
    name = method.knob.setting if method.knob else ""
    first = cost(method.id, model, {**settings, name: values[0]})  # says what is wrong with the other settings
    if first.adaptive:
        raise BudgetError(f"{method.id} keeps as many tokens as an image needs: no setting promises {what}")
    low, high = -1, len(values)  # values[low] is too dear, values[high] fits or cannot be
    while high - low > 1:
        middle = (low + high) // 2
        try:
            fits = measure(cost(method.id, model, {**settings, name: values[middle]})) <= most
        except BudgetError:
            fits = True  # cheaper than the method can be: the limit lies before
        low, high = (low, middle) if fits else (middle, high)
    try:
        return cost(method.id, model, {**settings, name: values[high]})
    except (IndexError, BudgetError) as error:
        least = cost(method.id, model, {**settings, name: values[max(low, 0)]})
        raise BudgetError(
            f"{method.id} cannot meet {what} on {model}: {name} = {values[max(low, 0)]} is the least it can do, which"
            f" costs {shown(least.total)} and leaves {least.schedule[-1].mlp} tokens"
        ) from error


def _values(method: ReducerMethod, model: str) -> tuple[Any, ...]:
    """The values of a method's knob, from the dearest to the cheapest."""
    if method.knob is None:
        raise BudgetError(f"{method.id} has no setting that moves its cost: give its settings themselves")
    match method.knob.values:
        case "count":
            return tuple(range(patches_of(model) + 1))
        case "rate":
            return tuple(thousandth / 1000 for thousandth in range(1000, 0, -1))
        case values:
            return tuple(values)


def patches_of(model: str) -> int:
    """Patch tokens that enter the first block of a model."""
    return int(cast("Any", _unreduced(model)).backbone.patches)


def shown(macs: float) -> str:
    """MACs as people print them: `2.703 G`."""
    unit = next(unit for unit in ("G", "M", "K", "") if macs >= UNITS[unit] or not unit)
    return f"{macs / UNITS[unit]:.3f} {unit}".rstrip()


def usual(method: str, model: str) -> dict[str, JsonValue]:
    """Settings where nobody gives them, for a first look at a method's speed. What is chosen stands in the record.

    They go by the field's common names, from the model's depth L and its P patches; empty where it has neither.

    - `r`, tokens merged per block: P // L, with which no patch or hardly any is left at the end. At 224 pixels and
      16-pixel patches that is 16 for 12 blocks and 8 for 24, as in ToMe's tables (Bolya et al. 2023, table 1).
    - `blocks`, where stages reduce: at a quarter, a half and three quarters of the depth, as 3, 6, 9 are of 12.
    - `keep_rate`: the method's own default, said aloud.

    Raises:
        UnknownNameError: no such method or model.
    """
    known: dict[str, Any] = {
        field.name: field.default for field in dataclasses.fields(registry.get_as(ReducerMethod, method).settings)
    }
    try:
        depth, patches = len(_unreduced(model).schedule), patches_of(model)
    except UnsupportedBackboneError:  # said where the model is reduced
        return {}
    stages = tuple(depth * quarter // 4 for quarter in (1, 2, 3))
    chosen: dict[str, JsonValue] = {}
    if "r" in known:
        chosen["r"] = patches // depth
    if isinstance(known.get("keep_rate"), float):
        chosen["keep_rate"] = known["keep_rate"]
    if "blocks" in known and known["blocks"] == (3, 6, 9) != stages:
        chosen["blocks"] = list(stages)
    return chosen
