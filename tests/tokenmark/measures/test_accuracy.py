"""Intervals and tests of accuracy against scipy and sums by hand."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from tokenmark.measures.accuracy import Accuracy, mcnemar, paired_difference, share_value, wilson

COUNTS = st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS, st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_scipy(counts, level):
    correct, n = counts
    expected = scipy.stats.binomtest(correct, n).proportion_ci(level, method="wilson")
    assert wilson(correct, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_of_a_textbook_case():
    """81 of 263 (Newcombe 1998, table I, method 3): 0.2553 to 0.3662."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_sum(gained, lost):
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1))
    assert mcnemar(gained, lost) == pytest.approx(min(2 * tail / 2**n, 1.0), rel=1e-9)


@pytest.mark.parametrize(
    ("gained", "lost", "p"), [(0, 0, 1.0), (0, 1, 1.0), (0, 5, 2 / 32), (1, 5, 14 / 64), (4, 4, 1.0)]
)
def test_mcnemar_by_hand(gained, lost, p):
    assert mcnemar(gained, lost) == pytest.approx(p)
    assert mcnemar(lost, gained) == pytest.approx(p)


def test_paired_difference_by_hand():
    """Agresti and Min 2005: half an image in each of the four cells, n becomes n + 2."""
    difference, se, (low, high) = paired_difference(gained=6, lost=16, n=100)
    assert difference == -0.1
    p12, p21 = 6.5 / 102, 16.5 / 102
    assert se == pytest.approx(math.sqrt(((p12 + p21) - (p12 - p21) ** 2) / 102))
    assert (low, high) == pytest.approx((-0.1 - 1.959964 * se, -0.1 + 1.959964 * se), abs=1e-6)


def test_paired_difference_covers_the_truth():
    """95 % intervals of correlated models hold the true difference about 95 times in 100."""
    rng = np.random.default_rng(0)
    cells = [0.85, 0.02, 0.05, 0.08]  # both right, only the judged, only the other, both wrong
    drawn = rng.multinomial(500, cells, size=2000)
    held = [low <= -0.03 <= high for _, _, (low, high) in (paired_difference(g, b, 500) for _, g, b, _ in drawn)]
    assert 0.935 <= np.mean(held) <= 0.975


@given(st.integers(0, 50), st.integers(0, 50))
def test_no_discordant_image_still_leaves_doubt(gained, lost):
    difference, se, (low, high) = paired_difference(gained, lost, 100)
    assert se > 0
    assert low < difference < high
    mirrored = paired_difference(lost, gained, 100)
    assert mirrored[:2] == pytest.approx((-difference, se))


def test_share():
    value = share_value("top1", 3, 4)
    assert (value.value, value.n, value.interval) == (0.75, 4, wilson(3, 4))


def test_values_of_the_measure():
    measure = Accuracy("top1", paired=True)
    judged = np.array([1, 1, 0, 0, 1, 0, 1, 1], bool)
    other = np.array([1, 1, 1, 0, 1, 1, 0, 1], bool)
    measure.update(judged[:5], other[:5])
    measure.update(judged[5:], other[5:])
    values = {value.name: value for value in measure.compute()}
    assert list(values) == ["top1", "top1_difference", "top1_mcnemar_p"]
    assert values["top1"].value == 5 / 8
    assert values["top1_difference"].value == pytest.approx(5 / 8 - 6 / 8)
    assert values["top1_mcnemar_p"].value == 1.0  # 1 gained, 2 lost: (1 + 3) / 8 twice
    assert {value.n for value in values.values()} == {8}


def test_unpaired_measure_says_nothing_of_differences():
    measure = Accuracy("class_accuracy")
    measure.update(np.array([True, False]))
    assert [value.name for value in measure.compute()] == ["class_accuracy"]


def test_a_measure_that_was_stopped_goes_on():
    rng = np.random.default_rng(0)
    right = rng.random((2, 20)) < 0.7
    whole, first, second = (Accuracy(paired=True) for _ in range(3))
    whole.update(right[0], right[1])
    first.update(right[0, :9], right[1, :9])
    second.load(first.state())
    second.update(right[0, 9:], right[1, 9:])
    assert second.compute() == whole.compute()
