"""Average pooling: against plain loops, and the places of what it makes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference_impls.reducers import average_pool
from reference_impls.reducers.average_pool import AveragePoolSettings, coarser, maps
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError

SIDES = st.integers(1, 20)


def window(index, count, wanted):
    """The rows (or columns) that the pooled row `index` of `wanted` covers, of `count`."""
    return range(math.floor(index * count / wanted), math.ceil((index + 1) * count / wanted))


@pytest.mark.parametrize("backbone", ["oblong", "dinov2-registers", "siglip"])
@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (3, 4)])
def test_tokens_are_the_means_of_their_windows(backbone, grid):
    model = vits.served(backbone)
    images = vits.images_for(model)
    reduced = average_pool.METHOD.build(model, AveragePoolSettings(grid=grid))
    state = reduced._embed(images)
    rows, columns = reduced.backbone.grid
    prefix = reduced.backbone.prefix
    got = reduced.reduction.before_block(0, state).x
    assert torch.equal(got[:, :prefix], state.x[:, :prefix])
    for row in range(grid[0]):
        for column in range(grid[1]):
            members = [
                prefix + r * columns + c for r in window(row, rows, grid[0]) for c in window(column, columns, grid[1])
            ]
            torch.testing.assert_close(got[:, prefix + row * grid[1] + column], state.x[:, members].mean(dim=1))


@given(SIDES, SIDES, st.data())
def test_middles_and_holders_lie_in_the_windows(rows, columns, data):
    to = data.draw(st.integers(1, rows)), data.draw(st.integers(1, columns))
    middle, holder = maps((rows, columns), to)
    for token, patch in enumerate(middle.tolist()):
        for place, at, count, wanted in zip(
            divmod(patch, columns), divmod(token, to[1]), (rows, columns), to, strict=True
        ):
            inside = window(at, count, wanted)
            assert place == inside[(len(inside) - 1) // 2]
    for patch, token in enumerate(holder.tolist()):
        for place, at, count, wanted in zip(
            divmod(patch, columns), divmod(token, to[1]), (rows, columns), to, strict=True
        ):
            assert place in window(at, count, wanted)


@given(SIDES, SIDES, st.floats(0.01, 1))
def test_a_rate_keeps_no_more_than_it_says_and_loses_less_than_a_row_and_a_column(rows, columns, rate):
    try:
        to = coarser((rows, columns), AveragePoolSettings(keep_rate=rate))
    except BudgetError:
        assert min(rows, columns) * rate**0.5 < 1
        return
    assert math.prod(to) <= rate * rows * columns * (1 + 1e-6)
    assert (to[0] + 1) * (to[1] + 1) > rate * rows * columns


@pytest.mark.parametrize(("rate", "side"), [(1.0, 14), (0.25, 7), (0.7, 11), ((5 / 14) ** 2, 5), (1 / 196, 1)])
def test_grids_of_a_14_by_14_model(rate, side):
    assert coarser((14, 14), AveragePoolSettings(keep_rate=rate)) == (side, side)


@pytest.mark.parametrize("backbone", ["dinov3", "beit"])
def test_a_token_has_the_place_of_the_middle_of_its_window(backbone):
    model = vits.served(backbone)
    reduced = average_pool.METHOD.build(model, AveragePoolSettings(grid=(2, 2)))
    prefix = reduced.backbone.prefix
    position = reduced.reduction.before_block(0, reduced._embed(vits.images_for(model))).position
    assert position.tolist() == [[*range(prefix), *(prefix + patch for patch in (0, 2, 8, 10))]] * 2


def test_tracing_says_which_token_holds_each_patch():
    model = vits.served("vit")
    trace = average_pool.METHOD.build(model, AveragePoolSettings(grid=(2, 2))).trace(vits.images_for(model, 1))
    assert trace.sources[-1][0].tolist() == [0, 1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4]
    assert trace.size.tolist() == [[1.0] * 5]


@pytest.mark.parametrize(
    "wrong",
    [
        *({"keep_rate": rate} for rate in (0.0, -0.5, 1.5, float("nan"), 0.01)),
        *({"grid": grid} for grid in ((0, 2), (2, 5), (5, 2), (-1, 1))),
    ],
)
def test_refuses_a_grid_that_is_finer_or_none(wrong):
    with pytest.raises(BudgetError) as caught:
        average_pool.METHOD.build(vits.served("vit"), AveragePoolSettings(**wrong))
    assert "\n" not in str(caught.value)
