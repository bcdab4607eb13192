"""Precision and recall against the definition in numpy, and torch-fidelity's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_prc import calculate_precision_recall_full, calculate_precision_recall_part

from tokenmark.errors import DataError
from tokenmark.measures import neighbours
from tokenmark.measures.neighbours import PrecisionRecallMeasure, precision_recall


def by_definition(generated, real, k):
    """The paper's equations 1 to 3, one distance after the other."""

    def distances(a, b):
        return np.asarray([[np.linalg.norm(x - y) for y in b] for x in a])

    def share(features, centres):
        radii = np.sort(distances(centres, centres), axis=1)[:, k]
        return (distances(features, centres) <= radii[None]).any(axis=1).mean()

    return share(generated, real), share(real, generated)


def drawn(seed, n, d, scale=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) * scale + shift


def both(generated, real, k=3):
    found = precision_recall(torch.from_numpy(generated), torch.from_numpy(real), k)
    return found.precision, found.recall


@settings(max_examples=30, deadline=None)
@given(
    st.integers(6, 30),
    st.integers(6, 30),
    st.integers(1, 6),
    st.integers(1, 5),
    st.floats(0.3, 3),
    st.integers(0, 10**6),
)
def test_equals_the_definition(n, m, d, k, scale, seed):
    generated, real = drawn(seed, n, d, scale, 0.5), drawn(seed + 1, m, d)
    assert both(generated, real, k) == pytest.approx(by_definition(generated, real, k))


@pytest.mark.parametrize("reference_of", [calculate_precision_recall_full, calculate_precision_recall_part])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.4, 0.2), (1.8, 0.0), (1.0, 50.0)])
def test_equals_torch_fidelity(reference_of, scale, shift, monkeypatch):
    monkeypatch.setattr(neighbours, "CHUNK", 64)
    generated, real = drawn(0, 300, 16, scale, shift), drawn(1, 250, 16)
    expected = reference_of(torch.from_numpy(generated), torch.from_numpy(real), 3, 70)
    assert both(generated, real) == pytest.approx(expected, abs=1e-7)  # they average in float32


def test_which_is_which():
    """Few modes give high precision and low recall; torch-fidelity had the two exchanged before 0.4.0."""
    precision, recall = both(drawn(0, 200, 4, scale=0.1), drawn(1, 200, 4))
    assert precision > 0.95
    assert recall < 0.3


@pytest.mark.parametrize("shift", [0.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_and_disjoint_sets(shift, dtype):
    features = torch.from_numpy(drawn(3, 100, 64, shift=shift)).to(dtype)
    assert precision_recall(features, features[torch.randperm(100)]) == neighbours.PrecisionRecall(1.0, 1.0)
    assert precision_recall(features, features + 1e4) == neighbours.PrecisionRecall(0.0, 0.0)


@pytest.mark.parametrize("chunk", [3, 2048])
def test_samples_that_occur_many_times_have_no_radius(chunk, monkeypatch):
    """With more than k copies a ball is a point: it holds the copies, and nothing that lies a little beside."""
    monkeypatch.setattr(neighbours, "CHUNK", chunk)
    points = np.repeat(drawn(4, 5, 64) * 7 + 100, 4, axis=0)
    beside = np.repeat(drawn(5, 5, 64) * 7 + 100, 4, axis=0)
    assert both(points[::-1].copy(), points) == (1.0, 1.0)
    assert both(points + 1e-3, points) == (0.0, 0.0)
    assert both(np.concatenate([points, beside]), points) == (0.5, 1.0)


def test_scale_and_shift_change_nothing():
    generated, real = drawn(6, 80, 8, 1.2), drawn(7, 90, 8)
    plain = both(generated, real)
    assert 0.2 < plain[0] < 1.0
    assert both(generated * 1e-3 + 5, real * 1e-3 + 5) == plain
    assert both(generated * 1e4 - 1e5, real * 1e4 - 1e5) == plain


@pytest.mark.parametrize(("n", "m", "whose"), [(3, 20, "generated"), (0, 20, "generated"), (20, 3, "real")])
def test_too_few_samples(n, m, whose):
    with pytest.raises(DataError, match=f"more than 3 {whose} samples"):
        both(drawn(0, n, 4), drawn(1, m, 4))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_feature_that_is_no_number(value):
    broken = drawn(0, 20, 4)
    broken[2, 1] = value
    for sets, whose in (((broken, drawn(1, 20, 4)), "generated"), ((drawn(1, 20, 4), broken), "real")):
        with pytest.raises(DataError, match=f"a {whose} feature is NaN or infinite"):
            both(*sets)


def test_widths_that_differ():
    with pytest.raises(DataError, match="4 dimensions, real ones 5"):
        both(drawn(0, 20, 4), drawn(1, 20, 5))


def test_a_measure_that_was_stopped_goes_on():
    real, generated = drawn(0, 60, 6).astype(np.float32), drawn(1, 50, 6, 1.3).astype(np.float32)
    whole, first, second = (PrecisionRecallMeasure(real) for _ in range(3))
    for at in range(0, 50, 9):
        whole.update(generated[at : at + 9])
    first.update(generated[:18])
    second.load(first.state())
    second.update(generated[18:])
    assert second.compute() == whole.compute()
    precision, recall = whole.compute()
    assert (precision.name, precision.n, recall.name, recall.n) == ("precision", 50, "recall", 60)
    expected = by_definition(generated.astype(np.float64), real.astype(np.float64), 3)
    assert (precision.value, recall.value) == pytest.approx(expected)
    assert precision.se == pytest.approx(np.sqrt(expected[0] * (1 - expected[0]) / 50))


def test_a_measure_that_saw_no_images():
    with pytest.raises(DataError, match="more than 3 generated samples, not 0"):
        PrecisionRecallMeasure(drawn(0, 20, 4)).compute()
