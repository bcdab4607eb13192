"""The table of movement: what is measured of a protocol, with a network that has no weights."""

import json

import pytest
import torch
from click.testing import CliRunner

from recipes import movement
from tokenmark import networks, protocols, resize
from tokenmark.extractors import Extractor, Outputs

CPU = torch.device("cpu")


class Means(Extractor):
    """In Inception's place: the means of nine parts of what it would see."""

    def __init__(self, protocol):
        middle = 127.5 if protocol.port == "pytorch-fid" else 128.0
        dtype = torch.float64 if protocol.feature_dtype == "float64" else torch.float32
        super().__init__(299, resize.get(protocol.feature_resize), dtype, (middle,) * 3, (middle,) * 3)

    def forward(self, images):
        return Outputs(torch.nn.functional.adaptive_avg_pool2d(self.prepared(images), 3).flatten(1).float())


@pytest.fixture(autouse=True)
def means(monkeypatch):
    monkeypatch.setattr(networks, "load", lambda protocol, *_: Means(protocol))


def test_the_pair_is_windows_and_what_halving_leaves_of_them():
    both = movement.pair(40)
    assert both.originals.shape == both.judged.shape == (40, 3, 256, 256)
    assert both.originals.dtype == torch.uint8
    assert len(torch.unique(both.originals.flatten(1), dim=0)) == 40
    assert 0.0 <= float(both.judged.min()) < float(both.judged.max()) <= 1.0
    error = (both.judged - both.originals / 255.0).abs().mean()
    assert 0.005 < error < 0.1, "they lose detail and nothing else"


def test_what_moves():
    told = []
    both = movement.pair(40)
    some = movement.Pair(both.originals[::8], both.judged[::8])
    measure = movement.Movement(some, networks.Given(), CPU, told.append)
    found = {
        name: measure.row(protocols.get(name))
        for name in ("torch-fidelity", "torchmetrics-1.7", "pytorch-fid", "pytorch-fid-float", "llamagen-val-adm")
    }
    base = found["torch-fidelity"]
    assert (base["mean_grey_levels"], base["max_grey_levels"]) == (0.0, 0.0)
    assert found["torchmetrics-1.7"]["mean_grey_levels"] == pytest.approx(0.5, abs=0.02), "truncated, not rounded"
    assert found["torchmetrics-1.7"]["max_grey_levels"] == pytest.approx(1.0, abs=1e-3)
    assert found["llamagen-val-adm"]["mean_grey_levels"] < 1e-3, "ties alone"
    assert found["pytorch-fid"]["mean_grey_levels"] != found["pytorch-fid-float"]["mean_grey_levels"]
    assert base["fid"] != found["pytorch-fid"]["fid"] != found["torchmetrics-1.7"]["fid"]
    assert sum(told) == 5 * (5 + 2), "each protocol's images, and the originals once per network"


def test_it_writes_what_it_found(tmp_path, monkeypatch):
    monkeypatch.setattr(movement, "rows", lambda *_: [{"protocol": "made"}])
    monkeypatch.setattr(movement.drawn, "inception", lambda path, _: path.write_bytes(b"") or path)
    output = tmp_path / "movement.json"
    done = CliRunner().invoke(movement.main, ["--images", "40", "--output", str(output)], catch_exceptions=False)
    assert done.exit_code == 0
    found = json.loads(output.read_text())
    assert found["rows"] == [{"protocol": "made"}]
    assert found["images"]["n"] == 40
    assert found["weights"]["published"] is False
    assert CliRunner().invoke(movement.main, ["--images", "50", "--output", str(output)]).exit_code == 2
