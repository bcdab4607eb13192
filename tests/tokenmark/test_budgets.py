"""Budgets: the dearest setting that fits, found exactly; and what cannot be met, refused with the reason."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmark import budgets
from tokenmark.contracts import BudgetError
from tokenmark.errors import SuiteError

S = "deit_small_patch16_224.random"


@pytest.mark.parametrize(
    ("text", "number", "share"),
    [("3.0G", 3e9, False), ("450m", 4.5e8, False), (" 7 K ", 7e3, False), ("2703", 2703.0, False), ("60%", 0.6, True)],
)
def test_budgets_are_read(text, number, share):
    assert budgets.parse(text) == (number, share)


@pytest.mark.parametrize("text", ["", "G", "3.0T", "-1G", "0", "0%", "1e9", "three", "3 0G", "nan"])
def test_what_is_no_budget(text):
    with pytest.raises(SuiteError, match=r"write MACs as 3\.0G"):
        budgets.parse(text)


@settings(max_examples=4, deadline=None)
@given(st.sampled_from(["tome", "topk"]), st.floats(0.55, 0.99))
def test_the_setting_found_is_the_dearest_that_fits(method, share):
    """By trying every one."""
    found = budgets.fit(method, "vit-mini", {}, f"{100 * share:.4f}%")
    knob, values = ("r", range(40)) if method == "tome" else ("keep_rate", [i / 1000 for i in range(300, 1001, 2)])
    limit = float(f"{100 * share:.4f}") / 100 * found.full
    totals = [budgets.cost(method, "vit-mini", {knob: value}).total for value in values]
    assert max(total for total in totals if total <= limit) <= found.total <= limit  # rates are tried more finely there


def test_one_budget_stated_three_ways():
    """ToMe's r = 13 on DeiT-S: 2.703 G, a fifth of the patches."""
    stated = budgets.cost("tome", S, {"r": 13})
    assert budgets.shown(stated.macs) == "2.703 G"
    assert budgets.fit("tome", S, {}, str(stated.total)).settings == {"r": 13}
    left = (stated.schedule[-1].mlp - 1) / 196
    assert budgets.fit_tokens("tome", S, {}, left).settings == {"r": 13}


def test_stages_of_a_deep_model_lie_at_its_quarters():
    found = budgets.fit("topk", "vit_large_patch16_224.random", {}, "60%")
    assert found.settings["blocks"] == [6, 12, 18]
    assert budgets.fit("topk", "vit_large_patch16_224.random", {"blocks": [2, 4]}, "60%").settings["blocks"] == [2, 4]


@pytest.mark.parametrize(
    ("method", "budget", "message"),
    [
        ("tome", "1M", "tome cannot meet a budget of 1M .* r = 196 is the least it can do, which costs 594.469 M"),
        ("tome-3stage", "1.5G", "tome-3stage cannot meet .* keep_rate = 0.50[0-9] is the least it can do"),
        ("topk", "9G", "costs 4.599 G unreduced: a budget of 9G leaves nothing to reduce"),
        ("none", "1G", "none has no setting that moves its cost"),
        ("ats", "3G", "as many tokens as an image needs"),
    ],
)
def test_refuses_what_cannot_be_met(method, budget, message):
    with pytest.raises(BudgetError, match=message) as caught:
        budgets.fit(method, S, {}, budget)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, float("nan")])
def test_refuses_a_share_that_is_none(share):
    with pytest.raises(BudgetError, match="above 0 and below 1"):
        budgets.fit_tokens("tome", S, {}, share)
