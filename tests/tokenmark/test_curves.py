"""Curves over token counts: which records make one, in which order."""

from PIL import Image

from tests.tokenmark import make
from tokenmark import curves
from tokenmark.records import Value


def at(tokens, rfid, **changes):
    values = [Value(name="rfid", value=rfid, n=5), Value(name="psnr", value=rfid + 1, n=5)]
    return make.record(values, tokens=tokens, method="one-d-piece", variant="mini-16", **changes)


def test_records_of_one_experiment_ordered_by_length():
    records = [at(16, 1.0), at(1, 9.0), at(4, 3.0)]
    (curve,) = curves.of([*records, make.record(), make.classified()])
    assert (curve.suite, curve.title) == ("made", "one-d-piece/mini-16")
    assert curve.tokens == (1, 4, 16)
    assert curve.values == {"rfid": (9.0, 3.0, 1.0), "psnr": (10.0, 4.0, 2.0)}


def test_other_experiments_make_other_curves():
    records = [at(1, 1.0), at(4, 2.0), at(1, 3.0, seed=1), at(4, 4.0, seed=1), at(1, 5.0, site="site-other")]
    found = curves.of(records)
    assert sorted(curve.values["rfid"] for curve in found) == [(1.0, 2.0), (3.0, 4.0)]


def test_one_length_is_no_curve():
    assert curves.of([at(4, 1.0)]) == []
    assert curves.of([]) == []


def test_a_value_that_one_record_lacks_is_left_out():
    short = make.record(make.RECONSTRUCTED[:1], tokens=2, method="one-d-piece", variant="mini-16")
    (curve,) = curves.of([at(1, 1.0), short])
    assert list(curve.values) == ["rfid"]


def test_the_seal_is_that_of_the_records_whatever_their_order():
    one, other, third = at(1, 1.0), at(4, 2.0), at(4, 2.5)
    (curve,), (turned,), (changed,) = curves.of([one, other]), curves.of([other, one]), curves.of([one, third])
    assert curve.seal == turned.seal != changed.seal


def test_picture():
    (curve,) = curves.of([at(1, 9.0), at(16, 1.0)])
    with curves.png(curve) as path, Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height
        assert len(picture.convert("L").getcolors()) > 2
    assert not path.exists()
