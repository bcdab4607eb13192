"""Terminal tables: at most 100 columns, and nothing lost to the width."""

import io
import re

import pytest
from rich.console import Console

from tests.tokenmark import make
from tokenmark import tables, terminal
from tokenmark.records import Value
from tokenmark.tracks import TRACKS, groups

DEVICE = "cpu: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz, 2 threads"


def printed(function, *arguments):
    out = io.StringIO()
    function(*arguments, Console(file=out, width=100, highlight=False))
    return out.getvalue()


def wide_records():
    """Rows as long as real ones get: the longest names, every column filled, a real processor's name."""
    codes = [Value(name="tokens_per_image", value=1024.0, n=500), Value(name="bits_per_pixel", value=12.345, n=500)]
    codes += [Value(name="codebook_use", value=1.0, n=500), Value(name="codebook_entropy", value=13.99, n=500)]
    reconstructed = [*make.RECONSTRUCTED, *codes]
    classified = {"method": "tome-3stage", "settings": {"keep_rate": [0.7, 0.49, 0.343], "proportional": False}}
    return [
        make.record(reconstructed, method="one-d-piece", variant="mini-16", tokens=16, device=DEVICE),
        make.record(reconstructed, method="maskgit-vq", variant="imagenet-f16-256", device=DEVICE),
        make.generated(settings={"preset": "mini-unguided"}, device=DEVICE),
        make.classified(**classified, device=DEVICE),
        make.classified(method="random-drop", settings={"keep_rate": 0.7}, device=DEVICE),
    ]


def test_no_line_is_wider_than_100_columns():
    text = printed(tables.print_tracks, wide_records())
    assert text.count("\n") > 20
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text


def test_every_cell_is_there_whole_or_folded():
    text = printed(tables.print_tracks, wide_records())
    letters = re.sub(r"\s", "", text)
    for track in TRACKS:
        for group in groups(track, wide_records()):
            assert re.sub(r"\s", "", group.heading) in letters
            for record in group.records:
                for column in track.columns:
                    for word in column.cell(record).text.split():
                        assert word in text or all(part in text for part in re.findall(r"[\w.]{1,4}", word))


def test_a_narrow_row_keeps_its_line():
    text = printed(tables.print_tracks, [make.record()])
    (line,) = [line for line in text.splitlines() if line.strip().startswith("jpeg/q50")]
    assert line.split() == ["jpeg/q50", "12.3", "±", "0.46", "27.50", "0.932"]


def test_columns_that_no_row_fills_are_left_out():
    text = printed(tables.print_tracks, [make.record()])
    assert "SSIM" in text
    assert "entropy" not in text


def test_markup_in_names_is_not_obeyed():
    text = printed(tables.print_tracks, [make.record(variant="[red]x[/red]")])
    assert "jpeg/[red]x[/red]" in text
    text = printed(tables.print_rows, "Rows", [{"name": "[bold]y"}])
    assert "[bold]y" in text


def test_rows_and_none():
    text = printed(tables.print_rows, "Suites", [{"suite": "mini", "jobs": "3"}, {"suite": "other", "jobs": "4"}])
    assert [line.split() for line in text.splitlines() if line.strip().startswith(("mini", "other"))] == [
        ["mini", "3"],
        ["other", "4"],
    ]
    printed(tables.print_rows, "Suites", [])
    assert printed(tables.print_tracks, []) == ""


@pytest.mark.parametrize("columns", ["60", "100", "250"])
def test_console_without_a_terminal_is_100_wide(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert terminal.console().width == 100


def test_only_names_take_two_lines():
    """Numbers with their errors stay in one piece, however long the names are."""
    text = printed(tables.print_tracks, wide_records())
    for track in TRACKS:
        for group in groups(track, wide_records()):
            for record in group.records:
                for column in track.columns:
                    if column.numeric:
                        assert column.cell(record).text in text
