"""The distance's standard error and its value at infinitely many samples, against repeated draws."""

import numpy as np
import pytest
import scipy.linalg

from tests.tokenmark.measures.drawn_features import drawn
from tokenmark.measures import frechet
from tokenmark.measures.frechet import Gaussian

DRAWS, SIDE, EACH = 200, 8, 300


def true_reference():
    """A Gaussian known without sampling, and the mixing by which it is drawn from."""
    mixing = np.random.default_rng(11).standard_normal((SIDE, SIDE)) / np.sqrt(SIDE) + np.eye(SIDE)
    return Gaussian(np.full(SIDE, 0.4), mixing.T @ mixing, 10**9), mixing


def test_standard_error_is_the_spread_of_repeated_draws():
    reference, mixing = true_reference()
    rng = np.random.default_rng(5)
    sets = [rng.standard_normal((EACH, SIDE)) @ mixing * 1.3 for _ in range(DRAWS)]
    spread = np.std([frechet.distance(x, reference) for x in sets], ddof=1)
    told = np.mean([frechet.standard_error(x, reference) for x in sets[:40]])
    assert told == pytest.approx(spread, rel=0.25)


@pytest.mark.parametrize("size", [0.3, 1.0])
def test_paired_standard_error_is_the_spread_of_redrawn_pairs(size):
    """Reconstructions carry their originals' own deviations, which the paired error must not count twice."""
    _, mixing = true_reference()
    rng = np.random.default_rng(6)
    distances, paired, unpaired = [], [], []
    for _ in range(DRAWS):
        x = rng.standard_normal((EACH, SIDE)) @ mixing
        y = x * 0.9 + 0.1 + size * rng.standard_normal((EACH, SIDE))
        reference = Gaussian.of(x)
        distances.append(frechet.distance(y, reference))
        if len(paired) < 40:
            paired.append(frechet.standard_error(y, reference, x))
            unpaired.append(frechet.standard_error(y, reference))
    spread = np.std(distances, ddof=1)
    assert np.mean(paired) == pytest.approx(spread, rel=0.25)
    if size < 0.5:  # the closer the copies, the more the pairing matters
        assert np.mean(unpaired) > 1.3 * spread


def jackknife(distance_without, n):
    """Tukey's standard error from the statistic with each sample left out once."""
    left_out = np.asarray([distance_without(np.arange(n) != i) for i in range(n)])
    return np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())


def test_standard_error_agrees_with_the_jackknife():
    x, y = drawn(0, 400, 6), drawn(0, 400, 6) * 0.8 + drawn(1, 400, 6) * 0.5
    reference = Gaussian.of(x)
    expected = jackknife(lambda kept: frechet.distance(y[kept], reference), 400)
    assert frechet.standard_error(y, reference) == pytest.approx(expected, rel=0.05)
    expected = jackknife(lambda kept: frechet.distance(y[kept], Gaussian.of(x[kept])), 400)
    assert frechet.standard_error(y, reference, x) == pytest.approx(expected, rel=0.05)


def test_infinite_takes_the_bias_away():
    reference, mixing = true_reference()
    covariance = mixing.T @ mixing * 1.3**2
    root = scipy.linalg.sqrtm(covariance)
    cross = np.trace(np.real(scipy.linalg.sqrtm(root @ reference.covariance @ root)))
    truth = reference.mean @ reference.mean + np.trace(covariance + reference.covariance) - 2 * cross
    rng = np.random.default_rng(7)
    sets = [rng.standard_normal((60, SIDE)) @ mixing * 1.3 for _ in range(60)]
    plain = np.mean([frechet.distance(x, reference) for x in sets])
    extrapolated = np.mean([frechet.infinite(x, reference) for x in sets])
    assert plain - truth > 0.3
    assert abs(extrapolated - truth) < abs(plain - truth) / 2


@pytest.mark.parametrize("n", [41, 60, 300])
def test_infinite_is_twice_the_whole_minus_its_halves(n):
    """Its halves come from sums and differences of sums; here they are fitted one by one."""
    features, reference = drawn(0, n, 24), Gaussian.of(drawn(1, 350, 24))
    rng = np.random.Generator(np.random.Philox(3))
    orders = [rng.permutation(n) for _ in range(frechet.HALVES)]
    halves = [features[part] for order in orders for part in (order[: n // 2], order[n // 2 :])]
    expected = 2 * frechet.distance(features, reference) - np.mean([frechet.distance(h, reference) for h in halves])
    assert frechet.infinite(features, reference, seed=3) == pytest.approx(expected, rel=1e-9)
