"""Selecting patches once: where, how many, and what is refused; of every method that does so."""

import pytest

from reference_impls.layers.single_stage import SingleStage, SingleStageSelection
from tests.reference_impls import vits
from tests.reference_impls.small_reducers import METHODS, build
from tokenmark.contracts import BlockTokens, BudgetError

ONCE = [name for name, method in METHODS.items() if issubclass(method.settings, SingleStage)]
EVERY = pytest.mark.parametrize("method", ONCE)


@EVERY
def test_all_prune_once_behind_two_thirds_of_the_blocks_and_cost_the_same(method):
    reduced = build(method, vits.served("vit"), block=None)
    assert isinstance(reduced.reduction, SingleStageSelection)
    assert reduced.schedule == (BlockTokens(17, 17),) * 2 + (BlockTokens(17, 9), BlockTokens(9, 9))


@EVERY
@pytest.mark.parametrize("backbone", ["oblong", "dinov2-registers"])
def test_kept_patches_stay_in_their_order_behind_every_prefix_token(method, backbone):
    model = vits.served(backbone)
    prefix, images = len(range(model.num_prefix_tokens)), vits.images_for(model, 3)
    sources = build(method, model, keep_rate=0.7).trace(images).sources[-1]
    for source in sources.tolist():
        kept = [place for place in source if place >= 0]
        assert kept == list(range(prefix + int((len(source) - prefix) * 0.7)))
        assert source[:prefix] == list(range(prefix))


@EVERY
def test_other_images_keep_other_patches(method):
    model = vits.served("vit")
    source = build(method, model).trace(vits.images_for(model, 8)).sources[-1]
    assert len({tuple(each.tolist()) for each in source}) > 1


@EVERY
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"keep_rate": 0.0}, "above 0"),
        ({"keep_rate": -1.0}, "above 0"),
        ({"keep_rate": 1.5}, "not above 1"),
        ({"keep_rate": float("nan")}, "above 0"),
        ({"keep_rate": 0.01}, "one patch or more"),
        ({"block": 4}, "0 to 3"),
        ({"block": -1}, "0 to 3"),
    ],
)
def test_refuses_an_impossible_budget(method, wrong, reason):
    with pytest.raises(BudgetError, match=reason) as caught:
        build(method, vits.served("vit"), **wrong)
    assert "\n" not in str(caught.value)
