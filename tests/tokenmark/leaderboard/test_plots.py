"""The plots' data: the Pareto front, the intervals, and CSV that says what records say."""

import csv
import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tokenmark import make
from tests.tokenmark.leaderboard.made import TOKENIZED
from tokenmark.leaderboard import plots
from tokenmark.tracks import TRACKS, groups

BY_ID = {track.id: track for track in TRACKS}


def tokenized(rfid, tokens, bits=0.5, **changes):
    changed = {"rfid": rfid, "tokens_per_image": tokens, "bits_per_pixel": bits}
    values = [value.model_copy(update={"value": changed.get(value.name, value.value)}) for value in TOKENIZED]
    return make.record(values, **changes)


def figures(track, records):
    (group,) = groups(BY_ID[track], records)
    return {figure.title: (figure, file) for figure, file in plots.of_group(BY_ID[track], group, "table")}


def rows(file):
    return list(csv.DictReader(io.StringIO(file.data.decode())))


def test_the_front_of_quality_against_tokens():
    points = {"best": (1.0, 64), "short": (2.0, 16), "worse": (2.5, 16), "long": (1.0, 256), "shortest": (9.0, 1)}
    records = [tokenized(rfid, tokens, method=name) for name, (rfid, tokens) in points.items()]
    figure, file = figures("reconstruction", records)["Quality against tokens"]
    front = {row["method"].partition("/")[0] for row in rows(file) if row["pareto"] == "yes"}
    assert front == {"best", "short", "shortest"}
    assert {point["method"] for point in figure.data["points"] if point["front"]} == front


numbers = st.floats(0.1, 10.0).map(lambda number: round(number, 1))


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=12))
def test_a_point_is_on_the_front_if_the_staircase_passes_through_it(pairs):
    """Sort by the first, and keep what beats all before it in the second."""
    stairs, highest = set(), -math.inf
    for x, y in sorted(set(pairs), key=lambda pair: (-pair[0], -pair[1])):
        if y > highest:
            stairs.add((x, y))
            highest = y
    for pair in pairs:
        assert plots.on_front(pair, pairs) == (pair in stairs)


def test_csv_holds_the_records_numbers_and_the_figure_their_display():
    records = [make.classified(), make.classified(method="topk", settings={"keep_rate": 0.7})]
    figure, file = figures("accuracy", records)["Accuracy against cost"]
    by_run = {record.run: record for record in records}
    for row, point in zip(rows(file), figure.data["points"], strict=True):
        record = by_run[row["run"]]
        top1 = record.value("top1")
        assert float(row["macs"]) == record.value("macs").value
        assert (float(row["top1"]), float(row["top1_low"]), float(row["top1_high"])) == (top1.value, *top1.interval)
        assert (row["macs_low"], row["macs_high"]) == ("", "")
        assert point["y"] == top1.value * 100
        assert point["x"] == pytest.approx(12.345678)
        assert (point["x1"], point["y1"]) == (None, top1.interval[0] * 100)


def test_methods_without_codes_have_no_place_among_tokens():
    without = make.record([value for value in TOKENIZED if value.name != "codebook_use"], method="webp")
    found = figures("reconstruction", [tokenized(1.0, 64), tokenized(2.0, 16, method="titok"), without])
    assert len(rows(found["Quality against tokens"][1])) == 2
    assert len(rows(found["Quality against bits"][1])) == 3


def test_one_point_is_no_plot():
    assert figures("reconstruction", [tokenized(1.0, 64)]) == {}
    assert figures("generation", [make.generated(), make.generated(method="other")]) == {}


def test_nought_has_no_logarithm():
    found = figures("reconstruction", [tokenized(0.0, 64), tokenized(1.0, 16, method="titok")])
    axes = found["Quality against tokens"][0].data
    assert (axes["x"]["base"], axes["y"]["base"]) == (2, 0)
