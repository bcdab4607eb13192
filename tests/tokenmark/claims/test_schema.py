import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tokenmark.claims.made import claim
from tokenmark.claims.quantities import QUANTITIES, decimals, half_digit, number
from tokenmark.claims.schema import RATIO_UNITS, Paper


@pytest.mark.parametrize(("printed", "half"), [("2.21", 0.005), ("4.60", 0.005), ("4.6", 0.05), ("79", 0.5)])
def test_the_last_printed_digit_is_known(printed, half):
    assert half_digit(printed) == pytest.approx(half, rel=1e-12)


@given(st.integers(0, 10**6), st.integers(0, 6))
def test_what_rounds_to_a_printed_number_is_half_a_digit_away_at_most(thousandths, places):
    exact = thousandths / 1000
    printed = f"{exact:.{places}f}"
    assert decimals(printed) == places
    assert abs(number(printed) - exact) <= half_digit(printed) * (1 + 1e-9)


@pytest.mark.parametrize("text", ["", "2,21", "1e3", "nan", "inf", " 2", "2_000", "about 2"])
def test_what_is_no_printed_number_is_refused(text):
    with pytest.raises(pydantic.ValidationError):
        claim(value=text)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"quantity": "rFID"}, "unknown quantity 'rFID'"),
        ({"unit": "Gb"}, "unit 'Gb'"),
        ({"samples": None}, "samples is missing"),
        ({"protocol": None}, "protocol is missing"),
        ({"kind": "ratio", "unit": "x"}, "needs a baseline"),
        ({"upper": "13"}, "a range has an upper end"),
        ({"bound": "range"}, "a range has an upper end"),
        ({"quantity": "other"}, "needs 'incomparable'"),
        ({"id": "Q50 rFID"}, "pattern"),
        ({"samples": 0}, "samples"),
        ({"origin": "memory"}, "origin"),
        ({"verdict": "reproduced"}, "Extra inputs"),
    ],
)
def test_a_claim_says_all_that_it_must_and_no_more(changes, says):
    with pytest.raises(pydantic.ValidationError, match=says):
        claim(**changes)


def test_an_unstated_axis_is_said_aloud():
    assert claim(samples="unstated", precision="unstated").samples == "unstated"


def paper(defaults, *claims):
    facts = {"version": 1, "title": "T", "url": "https://example.org", "name": "N", "defaults": defaults}
    return Paper.model_validate({**facts, "claims": list(claims)})


BARE = {"id": "a", "about": "a", "value": "1.0", "printed": "table 1", "origin": "paper"}


def test_defaults_go_to_the_claims_whose_family_asks_for_them_and_are_overruled():
    axes = {"protocol": "p", "data": "d", "samples": 7, "resolution": 224, "precision": "x", "selection": "s"}
    found = paper(
        axes | {"device": "V100", "batch": 8, "attention": "eager"},
        BARE | {"quantity": "macs", "unit": "G"},
        BARE | {"id": "b", "quantity": "top1", "unit": "%", "samples": 9},
        BARE | {"id": "c", "quantity": "images-per-second", "unit": "images/s"},
    )
    cost, accuracy, rate = found.claims
    assert (cost.protocol, cost.resolution, cost.device) == (None, 224, None)
    assert (accuracy.protocol, accuracy.samples, accuracy.device) == ("p", 9, None)
    assert (rate.device, rate.batch, rate.samples) == ("V100", 8, None)


def test_defaults_with_an_unknown_key_are_refused():
    with pytest.raises(pydantic.ValidationError, match="unknown key in defaults: devise"):
        paper({"devise": "V100"}, BARE | {"quantity": "macs", "unit": "G", "resolution": 224})


def test_two_claims_of_one_name_are_refused():
    one = BARE | {"quantity": "macs", "unit": "G", "resolution": 224}
    with pytest.raises(pydantic.ValidationError, match="two claims are called a"):
        paper({}, one, one)


@pytest.mark.parametrize(
    ("unit", "printed"), [("x", 0.4), ("x less", 2.5), ("%", 40.0), ("% more", -60.0), ("% less", 60.0)]
)
def test_units_of_a_ratio(unit, printed):
    assert RATIO_UNITS[unit](0.4) == pytest.approx(printed)


def test_quantities_have_one_name_each():
    assert all(name == each.name for name, each in QUANTITIES.items())
