"""The Fréchet distance against other libraries and closed forms."""

from types import SimpleNamespace

import cleanfid.fid
import numpy as np
import pytest
import pytorch_fid.fid_score
import scipy.linalg
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torchmetrics.image.fid import _compute_fid

from tests.tokenmark.measures.drawn_features import by_torch_fidelity, drawn
from tokenmark.errors import DataError
from tokenmark.measures import frechet
from tokenmark.measures.frechet import Gaussian

CASES = {
    "ordinary": (drawn(0, 400, 24), drawn(1, 350, 24)),
    "shifted": (drawn(0, 400, 24), drawn(0, 400, 24) + 0.7),
    "identical": (drawn(0, 400, 24), drawn(0, 400, 24)),
    "one dimension": (drawn(0, 50, 1), drawn(1, 60, 1, shift=2.0)),
    "fewer samples than dimensions": (drawn(0, 15, 24), drawn(1, 300, 24)),
    "fewer on both sides": (drawn(0, 15, 24), drawn(1, 12, 24)),
    "as many samples as dimensions": (drawn(0, 24, 24), drawn(1, 300, 24)),
    "one more sample than dimensions": (drawn(0, 25, 24), drawn(1, 300, 24)),
    "two samples": (drawn(0, 2, 24), drawn(1, 300, 24)),
    "rank-deficient sample": (drawn(0, 400, 24, rank=5), drawn(1, 350, 24)),
    "rank-deficient reference": (drawn(0, 400, 24), drawn(1, 350, 24, rank=5)),
    "rank-deficient both": (drawn(0, 400, 24, rank=6), drawn(1, 350, 24, rank=5)),
    "a constant feature": (drawn(0, 400, 24) * (np.arange(24) != 3), drawn(1, 350, 24) * (np.arange(24) != 3)),
    "nearly singular": (drawn(0, 400, 24) * np.logspace(0, -8, 24), drawn(1, 350, 24) * np.logspace(0, -8, 24)),
    "far from zero": (drawn(0, 400, 24, shift=1e4), drawn(1, 350, 24, shift=1e4)),
    "scales apart": (drawn(0, 400, 24) * np.logspace(-3, 3, 24), drawn(1, 350, 24) * np.logspace(-3, 3, 24)),
}


def by_torchmetrics(features, reference):
    tensors = [torch.from_numpy(x) for x in (features, reference)]
    sides = [(x.mean(dim=0), torch.cov(x.T).reshape(x.shape[1], x.shape[1])) for x in tensors]
    return float(_compute_fid(*sides[0], *sides[1]))


def older_sqrtm(matrix, disp=True):
    """scipy's root with the argument that its release 1.18 took away, and that these libraries still give."""
    root = scipy.linalg.sqrtm(matrix)
    return root if disp else (root, 0.0)


def statistics_of(features, reference):
    return [f(x) for x in (features, reference) for f in (lambda x: x.mean(axis=0), lambda x: np.cov(x, rowvar=False))]


def by_clean_fid(features, reference):
    return cleanfid.fid.frechet_distance(*statistics_of(features, reference))


def by_pytorch_fid(features, reference):
    return pytorch_fid.fid_score.calculate_frechet_distance(*statistics_of(features, reference))


def by_hand(features, reference):
    """The formula as it is printed: the root of the first covariance, then of its sandwich of the second."""
    (m, s), (m_r, s_r) = ((x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False))) for x in (features, reference))
    values, vectors = np.linalg.eigh(s)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    return ((m - m_r) ** 2).sum() + np.trace(s + s_r - 2 * np.real(scipy.linalg.sqrtm(root @ s_r @ root)))


FULL_RANK = ("ordinary", "shifted", "identical", "one dimension", "a constant feature", "far from zero")


def noise(name):
    """What rounding can do to the others: the root of an eigenvalue that should be zero is that of one unit's error."""
    if name in FULL_RANK:
        return 1e-9
    features, reference = CASES[name]
    scale = sum(np.trace(np.cov(x, rowvar=False)) for x in (features, reference))
    return features.shape[1] * scale * np.sqrt(np.finfo(np.float64).eps) / 2


@pytest.mark.parametrize("reference_of", [by_torch_fidelity, by_torchmetrics])
@pytest.mark.parametrize("name", CASES)
def test_equals_other_libraries(name, reference_of):
    features, reference = CASES[name]
    got = frechet.distance(features, Gaussian.of(reference))
    assert got == pytest.approx(reference_of(features, reference), rel=1e-9, abs=noise(name))


@pytest.mark.filterwarnings("ignore:Matrix is singular")
@pytest.mark.parametrize("reference_of", [by_clean_fid, by_pytorch_fid])
@pytest.mark.parametrize("name", [name for name in CASES if name != "scales apart"])
def test_equals_the_libraries_that_take_scipys_root(name, reference_of, monkeypatch):
    for module in (cleanfid.fid, pytorch_fid.fid_score):
        monkeypatch.setattr(module, "linalg", SimpleNamespace(sqrtm=older_sqrtm))
    features, reference = CASES[name]
    got = frechet.distance(features, Gaussian.of(reference))
    # Of "scales apart" they raise: its root has an imaginary part, of rounding alone, that they do not suffer.
    assert got == pytest.approx(reference_of(features, reference), rel=1e-9, abs=noise(name))


@pytest.mark.parametrize("name", CASES)
def test_statistics_alone_give_the_same(name):
    features, reference = CASES[name]
    kept = Gaussian.of(reference)
    got = frechet.between(Gaussian.of(features), kept)
    assert got == pytest.approx(frechet.distance(features, kept), rel=1e-9, abs=noise(name))
    assert frechet.between(Gaussian.of(features), kept) == got  # the factor that was kept


@pytest.mark.parametrize("name", ["ordinary", "shifted", "identical", "one dimension"])
def test_equals_the_formula_by_sqrtm(name):
    features, reference = CASES[name]
    got = frechet.distance(features, Gaussian.of(reference))
    assert got == pytest.approx(by_hand(features, reference), rel=1e-9, abs=1e-9)


def with_moments(seed, n, mean, deviations):
    """A sample whose mean and covariance are exactly those of the diagonal Gaussian asked for."""
    rng = np.random.default_rng(seed)
    raw = rng.standard_normal((n, len(mean)))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
    return white * deviations + mean


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 10).flatmap(lambda d: st.lists(st.tuples(*[st.floats(0, 5)] * 4), min_size=d, max_size=d)))
def test_closed_form_of_diagonal_gaussians(axes):
    m, s, m_r, s_r = np.asarray(axes).T
    assume((s > 1e-5).any() and (s_r > 1e-5).any())
    d = len(axes)
    if d == 1:
        features, reference = (np.asarray([[-1.0], [1.0]]) / np.sqrt(2) * b + a for a, b in ((m, s), (m_r, s_r)))
    else:
        features, reference = with_moments(1, 3 * d, m, s), with_moments(2, 4 * d, m_r, s_r)
    expected = ((m - m_r) ** 2).sum() + ((s - s_r) ** 2).sum()
    assert frechet.distance(features, Gaussian.of(reference)) == pytest.approx(expected, rel=1e-9, abs=2e-5)


@pytest.mark.parametrize(("n", "rank"), [(300, 16), (10, 16), (16, 16), (300, 4)])
def test_zero_for_identical_sets(n, rank):
    features = drawn(3, n, 16, rank)
    assert frechet.distance(features, Gaussian.of(features)) == pytest.approx(0.0, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(2, 40), st.integers(1, 20), st.integers(0, 10**6), st.floats(0.1, 10))
def test_symmetric_and_moves_with_the_features(n, n_r, d, seed, scale):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, d)), rng.standard_normal((n_r, d)) * 1.5 + 0.3
    turn, _ = np.linalg.qr(rng.standard_normal((d, d)))
    plain = frechet.distance(x, Gaussian.of(y))
    assert plain >= 0
    assert frechet.distance(y, Gaussian.of(x)) == pytest.approx(plain, rel=1e-6, abs=1e-5)
    moved = frechet.distance(x @ turn + 7, Gaussian.of(y @ turn + 7))
    assert moved == pytest.approx(plain, rel=1e-6, abs=1e-5)
    scaled = frechet.distance(x * scale, Gaussian.of(y * scale))
    assert scaled == pytest.approx(plain * scale**2, rel=1e-6, abs=1e-5 * scale**2)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_samples(n):
    with pytest.raises(DataError, match=f"at least 2 samples.*{n}$"):
        Gaussian.of(np.zeros((n, 4)))
    with pytest.raises(DataError, match="at least 2 samples"):
        frechet.distance(np.zeros((n, 4)), Gaussian.of(drawn(0, 30, 4)))


@pytest.mark.parametrize("n", [10, 400])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_constant_features(n, value):
    for act in (
        lambda: Gaussian.of(np.full((n, 24), value)),
        lambda: frechet.distance(np.full((n, 24), value), Gaussian.of(drawn(1, 350, 24))),
    ):
        with pytest.raises(DataError, match=f"all {n} samples have the same features"):
            act()


@pytest.mark.parametrize("n", [10, 400])
def test_features_of_another_width(n):
    with pytest.raises(DataError, match="8 dimensions, the reference's 24"):
        frechet.distance(drawn(0, n, 8), Gaussian.of(drawn(1, 350, 24)))


@pytest.mark.parametrize("n", [3, 20, 24])
def test_the_thin_factor_is_a_factor(n):
    """Where samples are no more than features, the factor comes from them and not from a root."""
    features = drawn(0, n, 24)
    found = Gaussian.of(features)
    assert found.factor.shape == (24, n)
    np.testing.assert_allclose(found.factor @ found.factor.T, np.cov(features, rowvar=False), atol=1e-10)
