"""The Inception score against torch-fidelity, closed forms, the jackknife, and what order does to it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_isc import isc_features_to_metric

from tokenmark.errors import DataError
from tokenmark.measures.inception_score import InceptionScoreMeasure, inception_score


def drawn(n=400, classes=10, sharpness=3.0, seed=0):
    """Class scores that are sure of one class each, in the order of classes."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((n, classes)).astype(np.float32)
    logits[np.arange(n), np.arange(n) * classes // n] += sharpness
    return logits


def by_torch_fidelity(logits, splits):
    found = isc_features_to_metric(torch.from_numpy(logits), splits, shuffle=False)
    return found["inception_score_mean"], found["inception_score_std"]


@pytest.mark.parametrize("n", [400, 403])
@pytest.mark.parametrize("splits", [1, 3, 10])
def test_equals_torch_fidelity(n, splits):
    logits = drawn(n)
    score = inception_score(logits, splits, "consecutive")
    assert (score.value, score.spread) == pytest.approx(by_torch_fidelity(logits, splits), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 10, 1008])
def test_closed_forms(classes):
    """Sure of every class equally often: as many as there are. Of none, or of one alone: one."""
    sure = np.eye(classes, dtype=np.float32)[np.arange(2 * classes) % classes] * 100
    assert inception_score(sure).value == pytest.approx(classes, rel=1e-9)
    assert inception_score(np.zeros((20, classes))).value == pytest.approx(1.0)
    assert inception_score(np.tile(sure[:1], (20, 1))).value == pytest.approx(1.0)
    assert inception_score(sure + 1e4).value == pytest.approx(classes, rel=1e-9)  # only differences count


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(2, 12), st.floats(0, 30), st.integers(0, 10**6))
def test_bounds_and_order(n, classes, sharpness, seed):
    logits = drawn(n, classes, sharpness, seed)
    score = inception_score(logits)
    assert 1 - 1e-9 <= score.value <= min(n, classes) + 1e-6
    turned = np.random.default_rng(seed).permutation(n)
    for order in ("shuffled", "consecutive"):
        assert inception_score(logits[turned], 1, order).value == pytest.approx(score.value, rel=1e-9)
    assert score.spread == 0.0


def test_consecutive_splits_of_sorted_samples_score_far_lower():
    """Each of ten splits sees one class, as where 50,000 samples come class by class: about 60 instead of 200."""
    logits = drawn(2000, sharpness=8.0)
    one, shuffled, consecutive = (
        inception_score(logits, splits, order).value
        for splits, order in ((1, "shuffled"), (10, "shuffled"), (10, "consecutive"))
    )
    assert one > 6
    assert shuffled == pytest.approx(one, rel=0.05)
    assert consecutive < 2
    mixed = logits[np.random.default_rng(0).permutation(2000)]
    assert inception_score(mixed, 10, "consecutive").value == pytest.approx(one, rel=0.05)


def test_shuffling_is_seeded():
    logits = drawn()
    scores = [inception_score(logits, 4, "shuffled", seed).value for seed in (1, 1, 2)]
    assert scores[0] == scores[1] != scores[2]


def test_error_of_one_split_agrees_with_the_jackknife():
    logits = drawn(300)[np.random.default_rng(1).permutation(300)]
    left_out = np.asarray([inception_score(np.delete(logits, i, axis=0)).value for i in range(300)])
    expected = np.sqrt(299 / 300 * ((left_out - left_out.mean()) ** 2).sum())
    assert inception_score(logits).se == pytest.approx(expected, rel=0.02)


def test_error_is_the_spread_of_repeated_draws():
    rng = np.random.default_rng(2)
    sets = [rng.standard_normal((500, 8)) * 2.0 for _ in range(150)]
    scores = [inception_score(logits) for logits in sets]
    spread = np.std([score.value for score in scores], ddof=1)
    assert np.mean([score.se for score in scores]) == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize(("n", "splits"), [(0, 1), (1, 1), (5, 3)])
def test_too_few_samples(n, splits):
    with pytest.raises(DataError, match=f"at least {2 * splits} samples, here are {n}"):
        inception_score(np.zeros((n, 4)), splits)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_class_score_that_is_no_number(value):
    logits = drawn(20)
    logits[4, 2] = value
    with pytest.raises(DataError, match="class score is NaN or infinite"):
        inception_score(logits)


def test_a_measure_that_was_stopped_goes_on_to_the_same_bits():
    logits = drawn(90)
    whole, first, second = (InceptionScoreMeasure(3, "consecutive") for _ in range(3))
    for at in range(0, 90, 7):
        whole.update(logits[at : at + 7])
    first.update(logits[:28])
    second.load(first.state())
    second.update(logits[28:])
    assert second.compute() == whole.compute()
    (value,) = whole.compute()
    expected = inception_score(logits, 3, "consecutive")
    assert (value.name, value.n, value.value, value.se) == ("inception_score", 90, expected.value, expected.se)
    empty = InceptionScoreMeasure()
    empty.load(empty.state())
    with pytest.raises(DataError, match="here are 0"):
        empty.compute()
