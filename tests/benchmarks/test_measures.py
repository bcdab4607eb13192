"""The benchmark of the measures, at a size that takes no time: who is compared, and that all find the same."""

import re

import pytest
import torch
from click.testing import CliRunner

from benchmarks import measures
from tokenmark.measures.moments import Gaussian


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(measures, "SIDES", (16, 24))
    monkeypatch.setattr(measures, "RESIZED", 20)
    monkeypatch.setattr(measures, "BATCH", 2)


def test_contenders_find_the_same():
    features, reference = measures.drawn(200, 12, 1), Gaussian.of(measures.drawn(300, 12, 2).numpy())
    sample = Gaussian.of(features.numpy())
    for contenders in (
        measures.distances(sample, reference),
        measures.statistics(features, reference, torch.device("cpu")),
    ):
        ours, *others = [float(call(features)) for call in contenders.values()]
        assert ours > 0
        assert others == pytest.approx([ours] * len(others), rel=1e-5)


@pytest.mark.usefixtures("small")
def test_it_runs_and_writes_the_page(tmp_path):
    page = tmp_path / "measured.md"
    arguments = ["--samples", "60", "--dimensions", "8", "--rounds", "2", "--device", "cpu", "--output", str(page)]
    done = CliRunner().invoke(measures.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    text = page.read_text()
    for row in ("D = 8, beside torch-fidelity", "D = 8, beside scipy's sqrtm", "60 x 8, beside", "24 to 20, beside"):
        assert row in text
    assert len(re.findall(r"^\|", text, re.MULTILINE)) == 2 + 5
    assert "torch-fidelity 0." in text
    assert "`nox -s bench-measures -- measures" in text
