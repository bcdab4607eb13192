"""What is shown of records: who stands beside whom, in which order, and with which numbers."""

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tokenmark import make
from tokenmark.cells import Cell, significant
from tokenmark.records import Value
from tokenmark.tracks import TRACKS, groups

BY_ID = {track.id: track for track in TRACKS}


def with_value(make_record, name, number, **changes):
    return make_record([Value(name=name, value=number, n=10)], **changes)


@pytest.mark.parametrize(
    ("track", "make_record", "best_first"),
    [
        ("reconstruction", make.record, [0.5, 3.0, 12.0]),
        ("generation", make.generated, [0.5, 3.0, 12.0]),
        ("accuracy", make.classified, [0.9, 0.5, 0.1]),
        ("throughput", make.classified, [900.0, 50.0, 1.0]),
    ],
)
def test_ranked_from_best_to_worst(track, make_record, best_first):
    track = BY_ID[track]
    records = [with_value(make_record, track.value, number, seed=i) for i, number in enumerate(best_first)]
    (group,) = groups(track, [records[1], records[2], records[0]])
    assert [record.value(track.value).value for record in group.records] == best_first


def test_equal_rows_stand_in_the_order_of_their_titles():
    records = [with_value(make.record, "rfid", 1.0, method=method) for method in ("webp", "jpeg", "titok")]
    (group,) = groups(BY_ID["reconstruction"], records)
    assert [record.spec.method for record in group.records] == ["jpeg", "titok", "webp"]


@pytest.mark.parametrize(
    "apart",
    [
        {"protocol": "other"},
        {"protocol_version": 2},
        {"samples": 400},
        {"precision": "bfloat16"},
        {"device": "cuda: Made"},
    ],
)
def test_what_must_not_be_ranked_together(apart):
    records = [make.record(), make.record(method="webp"), make.record(**apart)]
    found = groups(BY_ID["reconstruction"], records)
    assert sorted(len(group.records) for group in found) == [1, 2]
    assert len({group.heading for group in found}) == 2
    for group in found:
        for field in apart:
            assert len({getattr(record.spec, field) for record in group.records}) == 1


def test_reduced_models_are_ranked_beside_their_own_model_only():
    records = [make.classified(), make.classified(method="topk"), make.classified(model="vit-other")]
    found = groups(BY_ID["accuracy"], records)
    assert sorted(len(group.records) for group in found) == [1, 2]


def test_a_record_without_the_value_is_not_in_the_track():
    assert groups(BY_ID["reconstruction"], [make.classified()]) == []
    without = make.classified([value for value in make.CLASSIFIED if value.name != "speedup_best"])
    assert groups(BY_ID["throughput"], [without]) == []
    assert len(groups(BY_ID["accuracy"], [without])) == 1


def cells(track, record):
    return {column.title: column.cell(record) for column in BY_ID[track].columns}


def test_reconstruction_cells():
    found = cells("reconstruction", make.record(tokens=4))
    assert {title: cell.text for title, cell in found.items() if cell.text} == {
        "method": "jpeg/q50 tokens=4",
        "rFID": "12.3 ± 0.46",
        "PSNR dB": "27.50",
        "SSIM": "0.932",
    }
    assert found["rFID"].number == 12.345678


def test_generation_cells():
    found = {title: cell.text for title, cell in cells("generation", make.generated()).items() if cell.text}
    assert found == {
        "method": "titok-maskgit/mini-16 preset=mini",
        "gFID": "34.6 ± 1.2",
        "gFID, N→∞": "30.1",
        "class accuracy %": "87.6 [84.4, 90.2]",
        "parameters": "1.23 M",
        "samples/s": "250",
    }


def test_accuracy_and_throughput_cells():
    found = {title: cell.text for title, cell in cells("accuracy", make.classified()).items()}
    assert found == {
        "method": "tome r=4",
        "left": "23",
        "MMACs": "12.3",
        "top-1 %": "97.2 [95.3, 98.3]",
        "top-5": "",
        "difference": "-1.2 [-2.3, -0.1]",
        "p": "0.070",
    }
    found = {title: cell.text for title, cell in cells("throughput", make.classified()).items()}
    assert found == {
        "method": "tome r=4",
        "MACs %": "54",
        "images/s": "123,457",
        "batch": "64",
        "vs best": "12.35x [11.11, 13.33]",
        "vs eager": "15.68",
        "p50 ms": "123.46",
        "p99 ms": "234.57",
    }


@pytest.mark.parametrize("make_record", [make.record, make.classified, make.generated])
def test_every_number_is_the_records_own(make_record):
    """Whatever the column, the number behind it is a value of the record, unrounded, and its text begins with it."""
    record = make_record()
    own = {value.value for value in record.values}
    seen = 0
    for track in TRACKS:
        for column in track.columns:
            cell = column.cell(record)
            if cell.number is None or not cell.text or column.title in {"parameters", "samples/s", "memory"}:
                continue
            assert cell.number in own
            shown = float(re.match(r"[+-]?[\d,.]+", cell.text)[0].replace(",", ""))
            assert any(
                shown == pytest.approx(cell.number * scale, rel=0.02, abs=0.006) for scale in (1, 100, 1e-6, 1e-9)
            )
            seen += 1
    assert seen >= 3


@given(st.floats(1e-6, 1e9), st.integers(1, 4))
def test_significant_digits(number, digits):
    text = significant(number, digits).replace(",", "")
    assert "e" not in text
    # half a unit of the last significant place; a number that rounds up to the next power keeps its places
    unit = Decimal(10) ** (Decimal(number).adjusted() - digits + 1)
    assert abs(Decimal(text) - Decimal(number)) <= max(unit, Decimal(0)) / 2 or Decimal(number).adjusted() >= digits


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [(0.0, 2, "0"), (0.456789, 2, "0.46"), (12.345, 3, "12.3"), (1234.5, 3, "1,234"), (0.00012345, 2, "0.00012")],
)
def test_significant_by_hand(number, digits, text):
    assert significant(number, digits) == text


def test_cells_without_a_value_are_empty():
    record = make.record([Value(name="rfid", value=0.0, n=2, se=0.0)])
    found = cells("reconstruction", record)
    assert found["rFID"].text == "0 ± 0"
    assert found["SSIM"] == Cell("")
    assert cells("accuracy", make.record())["difference"] == Cell("")


def test_sites_are_not_ranked_together():
    found = groups(BY_ID["reconstruction"], [make.record(), make.record(site="site-other")])
    assert [len(group.records) for group in found] == [1, 1]
    assert [group.heading.endswith(site) for group, site in zip(found, ["site-made", "site-other"], strict=True)]


@pytest.mark.parametrize("field", ["implementation", "protocol_sha256", "weights", "data", "tokenmark"])
def test_a_record_of_older_sources_stands_back(field):
    old = make.record()
    other = {"weights": {"a": make.digest("b")}, "data": {"a": make.digest("b")}}.get(field, make.digest("new"))
    new = make.record(**{field: other}).model_copy(update={"started": "2026-02-01T00:00:00+00:00"})
    apart = make.record(tokens=4)
    (group,) = groups(BY_ID["reconstruction"], [new, old, apart])
    assert {record.run for record in group.records} == {new.run, apart.run}


def test_a_small_p_is_told_apart_from_nought():
    def shown(p):
        return cells("accuracy", make.classified([Value(name="top1_mcnemar_p", value=p, n=500)]))["p"]

    assert [shown(p).text for p in (0.0004, 0.0006, 1.0)] == ["<0.001", "0.001", "1.000"]
    assert shown(0.0004).number == 0.0004
