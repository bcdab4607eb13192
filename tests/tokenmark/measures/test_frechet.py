"""The Fréchet distance against other libraries, closed forms and repeated draws."""

from types import SimpleNamespace

import cleanfid.fid
import numpy as np
import pytest
import pytorch_fid.fid_score
import scipy.linalg
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.image.fid import _compute_fid

from tokenmark.errors import DataError
from tokenmark.measures import frechet
from tokenmark.measures.frechet import FrechetDistance, Gaussian, PairedDistance
from tokenmark.measures.reference import ReferenceRows


def drawn(seed, n, d, rank=None, shift=0.0):
    """Features `(n, d)` with unequal scales and correlations, on a subspace of `rank` dimensions."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(seed + 1000).standard_normal((rank or d, d)) / np.sqrt(d)
    scales = np.linspace(0.2, 3.0, rank or d)
    return rng.standard_normal((n, rank or d)) * scales @ mixing + shift


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


def by_torch_fidelity(features, reference):
    statistics = [fid_features_to_statistics(torch.from_numpy(x)) for x in (features, reference)]
    if features.shape[1] == 1:  # numpy's covariance of one variable is a number
        statistics = [{"mu": s["mu"], "sigma": s["sigma"].reshape(1, 1)} for s in statistics]
    return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]


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


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_feature_that_is_no_number(value):
    features = drawn(0, 30, 4)
    broken = features.copy()
    broken[3, 2] = value
    for act in (
        lambda: Gaussian.of(broken),
        lambda: frechet.distance(broken, Gaussian.of(features)),
    ):
        with pytest.raises(DataError, match="NaN or infinite"):
            act()
    for originals, judged in ((features, broken), (broken, features)):
        measure = paired_with(originals)
        measure.update(judged.astype(np.float32))
        with pytest.raises(DataError, match="NaN or infinite"):
            measure.compute()
    measure = FrechetDistance("gfid", Gaussian.of(features))
    measure.update(broken.astype(np.float32))
    with pytest.raises(DataError, match="NaN or infinite"):
        measure.compute()


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


def test_a_measure_that_saw_no_images():
    with pytest.raises(DataError, match=r"at least 2 samples.*are 0$"):
        FrechetDistance("gfid", Gaussian.of(drawn(0, 30, 4))).compute()


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


def paired_with(originals):
    """A measure of reconstructions whose originals' features are known."""
    rows = ReferenceRows(len(originals))
    rows.put(0, originals.astype(np.float32))
    return PairedDistance("rfid", rows)


def fixed(reference):
    return FrechetDistance("fid", Gaussian.of(reference))


@pytest.mark.parametrize("make", [paired_with, fixed])
def test_a_measure_that_was_stopped_goes_on_to_the_same_bits(make):
    reference, judged = drawn(0, 60, 8), drawn(1, 60, 8).astype(np.float32)
    whole, first, second = (make(reference) for _ in range(3))
    for at in range(0, 60, 7):
        whole.update(judged[at : at + 7])
    for at in range(0, 28, 7):
        first.update(judged[at : at + 7])
    second.load({name: array.copy() for name, array in first.state().items()})
    for at in range(28, 60, 7):
        second.update(judged[at : at + 7])
    assert second.compute() == whole.compute()
    empty = make(reference)
    empty.load(make(reference).state())
    assert empty.state() == {}


def test_originals_come_with_the_state_and_are_joined():
    """Another process, or another start, has the originals' features from the state, and never sees their images."""
    reference, judged = drawn(0, 60, 8).astype(np.float32), drawn(1, 60, 8).astype(np.float32)
    whole = paired_with(reference)
    whole.update(judged)
    shares = []
    for start, stop in ((0, 23), (23, 60)):
        rows = ReferenceRows(60)
        rows.of(start, stop, lambda part=slice(start, stop): reference[part])
        share = PairedDistance("rfid", rows)
        share.update(judged[start:stop], start)
        shares.append(share.state())
    together = PairedDistance("rfid", ReferenceRows(60))
    together.load(together.join(shares))
    assert together.compute() == whole.compute()


def test_known_originals_are_not_seen_again():
    rows = ReferenceRows(6)
    seen = []

    def see(start, stop):
        def look():
            seen.append((start, stop))
            return np.arange(start, stop, dtype=np.float32)[:, None]

        return look

    for start, stop in ((0, 2), (2, 6), (0, 4), (1, 6)):
        assert rows.of(start, stop, see(start, stop))[:, 0].tolist() == list(range(start, stop))
    assert seen == [(0, 2), (2, 6)]


def test_values_of_a_measure():
    reference, judged = drawn(0, 80, 8).astype(np.float32), drawn(1, 80, 8).astype(np.float32)
    for make, names in ((paired_with, ["rfid"]), (fixed, ["fid", "fid_infinite"])):
        measure = make(reference)
        measure.update(judged)
        values = measure.compute()
        assert [value.name for value in values] == names
        assert {value.n for value in values} == {80}
        theirs = by_torch_fidelity(judged.astype(np.float64), reference.astype(np.float64))
        assert values[0].value == pytest.approx(theirs, rel=1e-6)
        expected = frechet.standard_error(
            judged.astype(np.float64), Gaussian.of(reference), reference if make is paired_with else None
        )
        assert values[0].se == pytest.approx(expected, rel=1e-9)


def test_too_few_samples_give_no_error_and_no_extrapolation():
    for make, n in ((paired_with, 8), (fixed, 8), (fixed, 16)):
        reference, judged = drawn(0, n, 8).astype(np.float32), drawn(1, n, 8).astype(np.float32)
        measure = make(reference)
        measure.update(judged)
        values = measure.compute()
        assert len(values) == 1
        assert (values[0].se is None) == (n == 8)


@pytest.mark.parametrize("n", [3, 20, 24])
def test_the_thin_factor_is_a_factor(n):
    """Where samples are no more than features, the factor comes from them and not from a root."""
    features = drawn(0, n, 24)
    found = Gaussian.of(features)
    assert found.factor.shape == (24, n)
    np.testing.assert_allclose(found.factor @ found.factor.T, np.cov(features, rowvar=False), atol=1e-10)
