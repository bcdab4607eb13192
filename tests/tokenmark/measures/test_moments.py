"""Streamed sums against numpy's mean and covariance, in any order and any split."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmark.errors import DataError
from tokenmark.measures.moments import Gaussian, Moments


def close(gaussian, features, rel=1e-9):
    scale = features.std(axis=0).max()
    np.testing.assert_allclose(gaussian.mean, features.mean(axis=0), rtol=1e-12, atol=rel * scale)
    expected = np.atleast_2d(np.cov(features, rowvar=False))
    np.testing.assert_allclose(gaussian.covariance, expected, rtol=rel, atol=rel * scale**2)
    assert gaussian.n == len(features)


def drawn(seed, n, d):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + rng.standard_normal(d)


def summed(features, shift, sizes):
    moments = Moments(torch.from_numpy(shift))
    at = 0
    for size in sizes:
        moments.update(torch.from_numpy(features[at : at + size]))
        at += size
    return moments


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 7), st.integers(0, 10**6))
def test_any_split_into_batches(sizes, d, seed):
    features = drawn(seed, sum(sizes) + 2, d)
    moments = summed(features, features[0], [*sizes, 2])
    close(moments.gaussian(), features)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=4), st.integers(1, 6), st.integers(0, 10**6))
def test_processes_are_merged_by_adding_their_sums(sizes, d, seed):
    features = drawn(seed, sum(sizes) + 2, d)
    shift = drawn(seed + 1, 2, d)[0]
    ends = np.cumsum([0, *sizes, 2])
    parts = [summed(features[a:b], shift, [b - a]) for a, b in itertools.pairwise(ends)]
    merged = Moments(torch.from_numpy(shift))
    merged.load(torch.stack([part.sums() for part in parts]).sum(dim=0))
    close(merged.gaussian(), features)


@pytest.mark.parametrize("where", [1e3, 1e6])
def test_features_far_from_zero_lose_no_digits(where):
    """About zero, the squares of 1e6 would leave four digits of a variance of one."""
    features = drawn(0, 500, 8) + where
    close(summed(features, features[:10].mean(axis=0), [100] * 5).gaussian(), features, rel=1e-8)
    close(Gaussian.of(features), features, rel=1e-8)


def test_a_stopped_one_goes_on_to_the_same_bits():
    features = drawn(1, 30, 5)
    whole, first = (summed(features[:n], features[0], [10] * (n // 10)) for n in (30, 20))
    second = Moments(torch.from_numpy(features[0]))
    second.load(first.sums())
    second.update(torch.from_numpy(features[20:]))
    assert torch.equal(second.sums(), whole.sums())
    assert second.n == 30
    assert not torch.equal(first.sums(), whole.sums())  # what was taken over is a copy


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_narrow_features_are_summed_in_float64(dtype):
    features = torch.from_numpy(drawn(2, 300, 4)).to(dtype)
    moments = Moments(torch.zeros(4))
    moments.update(features)
    close(moments.gaussian(), features.double().numpy())
    close(Gaussian.of(features.numpy()), features.double().numpy())


def test_more_samples_than_fit_a_piece(monkeypatch):
    monkeypatch.setattr("tokenmark.measures.moments.CHUNK", 7)
    features = drawn(3, 50, 4)
    features.setflags(write=False)  # as a memory map's are
    close(Gaussian.of(features), features)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("both", [False, True])
def test_what_is_no_number_is_told_of_at_the_end(value, both):
    features = drawn(4, 30, 4)
    features[3, 2] = value
    if both:
        features[9, 2] = -value
    with pytest.raises(DataError, match="NaN or infinite"):
        summed(features, np.zeros(4), [10, 10, 10]).gaussian()
    with pytest.raises(DataError, match="NaN or infinite"):
        Gaussian.of(features)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few(n):
    with pytest.raises(DataError, match=rf"at least 2 samples.*are {n}$"):
        summed(drawn(5, 4, 3), np.zeros(3), [n]).gaussian()


@pytest.mark.parametrize("value", [0.0, 0.1, 3e5])
@pytest.mark.parametrize("shift", [0.0, 0.1, -7.0])
def test_constant_features_wherever_the_shift(value, shift):
    features = np.full((64, 3), value)
    with pytest.raises(DataError, match="all 64 samples have the same features"):
        summed(features, np.full(3, shift), [32, 32]).gaussian()
    features[5, 1] += 0.01 * max(value, 1.0)
    close(summed(features, np.full(3, shift), [32, 32]).gaussian(), features, rel=1e-4)


def test_a_factor_is_a_root_and_the_sandwich_its_product():
    for features in (drawn(6, 60, 5), drawn(6, 4, 5)):  # of full rank, and not
        gaussian, other = Gaussian.of(features), np.cov(drawn(7, 60, 5), rowvar=False)
        np.testing.assert_allclose(gaussian.factor @ gaussian.factor.T, gaussian.covariance, atol=1e-9)
        expected = gaussian.factor.T @ other @ gaussian.factor
        np.testing.assert_allclose(np.tril(gaussian.sandwich(other)), np.tril(expected), atol=1e-9)
        assert gaussian.rank == min(len(features) - 1, 5)
