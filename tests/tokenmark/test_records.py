"""Records: what is written is read, and whatever was changed is seen."""

import json

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tokenmark import make
from tokenmark.errors import RecordError
from tokenmark.files import canonical_json, sha256_text
from tokenmark.records import Value, parse


def test_roundtrip():
    record = make.record(pictures={"shown": b"png"}, settings={"r": 4})
    assert parse(record.to_json(), "made") == record
    assert record.value("psnr").value == 27.5
    assert record.value("absent") is None
    assert record.to_json().endswith(b"}\n")


@settings(max_examples=40, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(0, 1e300))
def test_numbers_come_back_to_the_bit(number, error):
    record = make.record([Value(name="x", value=number, n=1, se=error, interval=(number, error))])
    assert parse(record.to_json(), "made") == record


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_no_value_is_nan(number):
    with pytest.raises(pydantic.ValidationError):
        Value(name="x", value=number, n=1)
    with pytest.raises(pydantic.ValidationError):
        Value(name="x", value=1.0, n=1, se=number)


def leaves(value, path=()):
    """The paths of everything in a JSON value that is no container, and of empty containers."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [found for key, item in items for found in leaves(item, (*path, key))]
    return [path]


def other_than(value):
    """Another value of the same type."""
    if isinstance(value, str):
        return value[:-1] + ("1" if value.endswith("0") else "0") if value else "x"
    if isinstance(value, bool) or value is None:
        return not value if value is not None else "1"
    if isinstance(value, int | float):
        return value + 1
    return [*value, "x"] if isinstance(value, list) else {**value, "x": 1}


MADE = json.loads(make.record(pictures={"shown": b"png"}, settings={"r": 4}, details={"tokens": [1, 2]}).to_json())


@pytest.mark.parametrize("path", leaves(MADE), ids=lambda path: ".".join(map(str, path)))
def test_any_single_change_is_seen(path):
    raw = json.loads(json.dumps(MADE))
    place = raw
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = other_than(place[path[-1]])
    with pytest.raises(RecordError, match="restore it from version control"):
        parse(json.dumps(raw).encode(), "made")


def test_a_value_can_neither_be_added_nor_taken_away():
    for change in (
        lambda values: values.pop(),
        lambda values: values.reverse(),
        lambda values: values.append(values[0]),
    ):
        raw = json.loads(json.dumps(MADE))
        change(raw["values"])
        with pytest.raises(RecordError, match="its seal does not match"):
            parse(json.dumps(raw).encode(), "made")


def test_a_resealed_record_of_another_specification():
    """A forged seal does not help who changes the specification: its hash is the name."""
    raw = json.loads(json.dumps(MADE))
    raw["spec"]["seed"] = 5
    raw.pop("seal")
    raw["seal"] = sha256_text(canonical_json(raw))
    with pytest.raises(RecordError, match="its run is not the hash of its specification"):
        parse(json.dumps(raw).encode(), "made")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"3", b"null", b"\xff\xfe", b'{"schema_version": 2}'])
def test_what_is_no_record(data):
    with pytest.raises(RecordError, match="made") as error:
        parse(data, "made")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_truncated(part):
    data = make.record().to_json()
    with pytest.raises(RecordError, match=r"not whole JSON \(truncated\?\)"):
        parse(data[: int(len(data) * part)], "made")


@pytest.mark.parametrize("version", [0, 1, 3, "2", None])
def test_another_schema(version):
    raw = {**MADE, "schema_version": version}
    with pytest.raises(RecordError, match=f"schema {version}, this Tokenmark reads 2"):
        parse(json.dumps(raw).encode(), "made")


def test_layout_is_not_part_of_the_seal():
    assert parse(json.dumps(MADE, indent=4).encode(), "made").seal == MADE["seal"]


def test_bounds_are_the_interval_or_that_of_the_standard_error():
    assert Value(name="rfid", value=2.0, n=5, se=0.5).bounds == pytest.approx((1.02, 2.98))
    assert Value(name="rfid", value=2.0, n=5, se=0.5, interval=(1, 4)).bounds == (1, 4)
    assert Value(name="rfid", value=2.0, n=5).bounds is None
