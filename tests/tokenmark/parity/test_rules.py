"""The rules by which weights, inputs and records of a vector are made."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmark.parity import rules

NAMES = st.text(min_size=1, max_size=12)
SHAPES = st.lists(st.integers(1, 4), min_size=0, max_size=3).map(tuple)


def recorded(array):
    """What a vector keeps of an output, by its definition."""
    flat = np.asarray(array).reshape(-1)
    if flat.dtype.kind in "iub":
        return {"shape": list(np.shape(array)), "kind": "integer", "values": flat.tolist(), "sum": int(flat.sum())}
    count = min(64, flat.size)
    places = [math.floor(i * (flat.size - 1) / max(1, count - 1) + 1e-9) for i in range(count)]
    return {
        "shape": list(np.shape(array)),
        "kind": "float",
        "values": flat[places].tolist(),
        "sum": float(flat.sum()),
        "l2": float(np.linalg.norm(flat)),
    }


def test_values_that_every_machine_gives():
    """As the vectors' own makers computed them."""
    assert rules.uniform("a", (3,)).tolist() == [-0.6711789920660771, -0.42095997991413725, -0.9532919780951248]
    assert rules.weight("x.weight", (2, 3))[1].tolist() == [
        0.004772411018674871,
        -0.2527899936686173,
        0.11706671228682208,
    ]
    assert rules.weight("n.weight", (2,)).tolist() == [1.0862857694466277, 0.9012308944324081]
    assert rules.weight("n.bias", (2,)).tolist() == [0.09420509489469187, 0.07980294971214755]
    image = rules.made_input("image", {"shape": [2], "rule": "unit"})
    assert image.tolist() == [0.7681591972008778, 0.6466744231813961]


@given(NAMES, SHAPES)
def test_values_are_in_range_and_the_same_again(name, shape):
    values = rules.uniform(name, shape)
    assert values.shape == shape
    assert ((values >= -1) & (values < 1)).all()
    assert np.array_equal(values, rules.uniform(name, shape))


def test_a_matrix_has_the_variance_of_its_fan_in():
    values = rules.weight("some.weight", (400, 50, 2))
    assert values.var() == pytest.approx(1 / 100, rel=0.02)
    assert values.mean() == pytest.approx(0, abs=2e-3)


@pytest.mark.parametrize(
    ("key", "centre"),
    [("n.weight", 1), ("n.bias", 0), ("ls.gamma", 1), ("bn.running_var", 1), ("bn.running_mean", 0), ("weight", 1)],
)
def test_vectors_are_near_one_where_they_scale_and_near_zero_else(key, centre):
    values = rules.weight(key, (500,))
    assert np.abs(values - centre).max() <= 0.1
    assert np.abs(values - centre).max() > 0.09


def test_floats_agree_within_a_millionth_of_their_root_mean_square():
    array = 1000.0 + np.arange(200.0).reshape(10, 20)
    expected = recorded(array)
    assert rules.difference(expected, array) is None
    assert rules.difference(expected, array * (1 + 5e-7)) is None
    assert "of the root mean square" in rules.difference(expected, array * (1 + 3e-6))
    assert "nan" in rules.difference(expected, np.full_like(array, np.nan))
    assert "shape [20, 10]" in rules.difference(expected, array.reshape(20, 10))
    assert rules.difference(recorded(np.zeros(3)), np.zeros(3)) is None


def test_integers_agree_exactly():
    array = np.arange(12).reshape(3, 4)
    other = array.copy()
    other[1, 1] = 0
    assert rules.difference(recorded(array), array) is None
    assert rules.difference(recorded(array), other) == "1 of 12 integers differ"
    assert "expected integers" in rules.difference(recorded(array), array.astype(float))


def test_long_integers_are_held_to_their_sum_too():
    array = np.arange(10000)
    places = np.linspace(0, 9999, 4096).astype(int)
    expected = {"shape": [10000], "kind": "integer", "values": array[places].tolist(), "sum": int(array.sum())}
    assert rules.difference(expected, array) is None
    hidden = next(index for index in range(10000) if index not in set(places.tolist()))
    array[hidden] += 1
    assert "sum" in rules.difference(expected, array)


def test_inputs_by_rule_and_outright():
    unit = rules.made_input("image", {"shape": [2, 3], "rule": "unit"})
    signed = rules.made_input("image", {"shape": [2, 3], "rule": "uniform"})
    assert np.array_equal(unit, (signed + 1) / 2)
    assert np.array_equal(
        rules.made_input("a", {"shape": [3], "rule": "unit", "tag": "b"}),
        rules.made_input("b", {"shape": [3], "rule": "unit"}),
    )
    assert rules.made_input("labels", {"shape": [2], "values": [3, 7]}).tolist() == [3, 7]
