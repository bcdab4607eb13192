"""The benchmark of the engine itself, at a size that takes no time: where time goes, and that both runs end well."""

import time

import pytest
import torch
from click.testing import CliRunner

from benchmarks import engine
from tokenmark import networks
from tokenmark.extractors import Outputs

CPU = torch.device("cpu")


def test_a_stopwatch_adds_up_what_calls_take_even_where_they_fail():
    watch = engine.Stopwatch(CPU)
    assert watch.timed(lambda x, y: x + y)(1, y=2) == 3
    watch.timed(time.sleep)(0.01)
    before = watch.seconds
    with pytest.raises(ZeroDivisionError):
        watch.timed(lambda: 1 // 0)()
    assert watch.seconds >= before >= 0.01


def test_the_stand_in_gives_what_inception_gives():
    seen = engine.Projection(4, CPU)(torch.rand(3, 3, 4, 4))
    assert (seen.features.shape, seen.logits.shape) == ((3, 2048), (3, 1008))
    tokenizer = engine.Darker(4)
    images = torch.rand(3, 3, 4, 4)
    assert torch.equal(tokenizer.decode(tokenizer.encode(images)), images * 0.95)


def test_it_runs_and_writes_the_page(tmp_path, monkeypatch):
    """Both runs are the runner's own; Inception is left out, as a pass of it takes longer than all else here."""
    pooled = torch.nn.AdaptiveAvgPool2d(4)

    def seen(images):
        return Outputs(pooled(images).flatten(1), logits=pooled(images).flatten(1))

    for name, value in {"VARIANT": "mini-16", "SIDE": 32, "WIDTH": 32}.items():
        monkeypatch.setattr(engine, name, value)
    monkeypatch.setattr(engine.drawn, "inception", lambda path: path.write_bytes(b"") or path)
    monkeypatch.setattr(networks, "load", lambda *_: seen)
    page = tmp_path / "measured.md"
    arguments = ["--images", "2", "--batch", "1", "--many", "12", "--device", "cpu", "--output", str(page)]
    done = CliRunner().invoke(engine.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    text = page.read_text()
    for row in ("| TiTok-S |", "| Inception |", "| the engine's own |", "| **the run's own** |"):
        assert row in text
    assert "`nox -s bench-measures -- engine" in text
