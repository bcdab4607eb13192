"""The benchmark of reading: it runs, and compares the same pixels. What it measures is not tested."""

import pytest
from click.testing import CliRunner

from benchmarks import reading


def test_it_runs_and_writes_the_page(tmp_path):
    page = tmp_path / "measured.md"
    arguments = ["--pictures", "3", "--rounds", "2", "--output", str(page)]
    done = CliRunner().invoke(reading.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    text = page.read_text()
    assert "| prepared array |" in text
    assert "`nox -s bench-measures -- reading" in text


def test_the_table_is_of_medians():
    shown = reading.shown([(100.0, 1.0), (300.0, 2.0), (90.0, 1.0)])
    assert "| prepared array | 100 images/s | 1 images/s | 100 | 90 to 150 |" in shown


def test_it_stops_where_the_two_ways_differ(tmp_path, monkeypatch):
    right = reading.decoded
    made = []

    def other(files):
        made.append(files)
        return right(files) if len(made) == 1 else 255 - right(files)

    monkeypatch.setattr(reading, "decoded", other)
    with pytest.raises(SystemExit, match="other pixels"):
        reading.measure(tmp_path, pictures=2, rounds=1)
