"""Strided: what is kept is even over the grid, and the same of every image."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference_impls.layers.stages import Stages
from reference_impls.reducers import strided
from reference_impls.reducers.strided import spread_order
from tests.reference_impls import vits

SIDES = st.integers(1, 30)


def kept(keep_rate, blocks, name="vit", batch=2):
    """For every image the original tokens that are left."""
    model = vits.served(name)
    trace = strided.METHOD.build(model, Stages(keep_rate=keep_rate, blocks=blocks)).trace(vits.images_for(model, batch))
    return [[token for token, at in enumerate(source) if at >= 0] for source in trace.sources[-1].tolist()]


def dithered(rows, columns):
    """The patches in the order of a Bayer matrix that is built by doubling, as its definition has it."""
    matrix = [[0]]
    while len(matrix) < max(rows, columns):
        twice = range(2 * len(matrix))
        matrix = [
            [4 * matrix[row % len(matrix)][column % len(matrix)] + tile(row, column, len(matrix)) for column in twice]
            for row in twice
        ]
    return sorted(range(rows * columns), key=lambda patch: matrix[patch // columns][patch % columns])


def tile(row, column, side):
    return [[0, 2], [3, 1]][row // side][column // side]


@given(SIDES, SIDES)
def test_order_is_the_ordered_dither(rows, columns):
    assert spread_order((rows, columns)) == dithered(rows, columns)


@given(SIDES, SIDES, st.data())
def test_any_first_few_are_spread_over_all_parts(rows, columns, data):
    """Every 2^j by 2^j cell of the grid has as many as any other, one more or less."""
    count = data.draw(st.integers(1, rows * columns))
    side = 2 ** data.draw(st.integers(0, 5))
    cells = {(row, column): 0 for row in range(rows // side) for column in range(columns // side)}
    for patch in spread_order((rows, columns))[:count]:
        cell = (patch // columns // side, patch % columns // side)
        if cell in cells:
            cells[cell] += 1
    assert max(cells.values(), default=0) - min(cells.values(), default=0) <= 1


@pytest.mark.parametrize("side", [14, 16, 24])
def test_a_quarter_is_every_second_patch_of_every_second_row(side):
    quarter = sorted(spread_order((side, side))[: side * side // 4])
    assert quarter == [side * row + column for row in range(0, side, 2) for column in range(0, side, 2)]


def test_stages_keep_what_is_first_in_the_order():
    order = spread_order((4, 4))
    for rate in (0.9, 0.5, 0.3):
        expected = sorted(order[: math.floor(16 * rate**2)])
        assert kept(rate, (1, 3)) == [[0, *(1 + patch for patch in expected)]] * 2


def test_an_oblong_grid_keeps_its_rows_and_columns_apart():
    assert kept((4 / 15,), (0,), "oblong", 1) == [[0, 1, 3, 5, 13]]
