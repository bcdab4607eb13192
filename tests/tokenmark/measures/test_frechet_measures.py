"""The measures that keep features until the distance is computed: stopped, joined, and their values."""

import numpy as np
import pytest

from tests.tokenmark.measures.drawn_features import by_torch_fidelity, drawn
from tokenmark.errors import DataError
from tokenmark.measures import frechet
from tokenmark.measures.frechet import FrechetDistance, Gaussian, PairedDistance
from tokenmark.measures.reference import ReferenceRows


def paired_with(originals):
    """A measure of reconstructions whose originals' features are known."""
    rows = ReferenceRows(len(originals))
    rows.put(0, originals.astype(np.float32))
    return PairedDistance("rfid", rows)


def fixed(reference):
    return FrechetDistance("fid", Gaussian.of(reference))


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


def test_a_measure_that_saw_no_images():
    with pytest.raises(DataError, match=r"at least 2 samples.*are 0$"):
        FrechetDistance("gfid", Gaussian.of(drawn(0, 30, 4))).compute()


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
