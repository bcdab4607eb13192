"""The benchmark of reading: it runs, and compares the same pixels. What it measures is not tested."""

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("reading", Path(__file__).parents[2] / "benchmarks" / "reading.py")
reading = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reading)


def test_it_measures(tmp_path):
    found = reading.measure(tmp_path, pictures=3, rounds=1)
    assert found["pictures"] == 3
    assert found["ratio"] > 0


def test_it_stops_where_the_two_ways_differ(tmp_path, monkeypatch):
    right = reading.decoded
    made = []

    def other(files):
        made.append(files)
        return right(files) if len(made) == 1 else 255 - right(files)

    monkeypatch.setattr(reading, "decoded", other)
    with pytest.raises(SystemExit, match="other pixels"):
        reading.measure(tmp_path, pictures=2, rounds=1)
