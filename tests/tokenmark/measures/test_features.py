"""The feature network of protocol mini: its shapes, its weights, and what its card says that it reaches."""

import pytest
import torch

from tokenmark import registry
from tokenmark.data import catalog
from tokenmark.errors import UnknownNameError, WeightsError
from tokenmark.measures import features

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network():
    return features.load("mini-features", CPU)


def test_shapes(network):
    images = torch.rand(3, 3, 32, 32)
    with torch.inference_mode():
        assert network.features(images).shape == (3, 64)
        assert network(images).shape == (3, 10)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_an_image_has_its_features_in_any_batch(network):
    images = torch.rand(4, 3, 32, 32)
    with torch.inference_mode():
        together = network.features(images)
        alone = torch.cat([network.features(image[None]) for image in images])
    assert torch.allclose(together, alone, atol=1e-5)
    assert (together.std(dim=0) > 0).any()


def test_reaches_what_its_card_says(network, digits_folder):
    data = catalog.load("digits-32", "val", digits_folder)
    images, labels = data.batch(0, len(data))
    with torch.inference_mode():
        correct = (network(images).argmax(dim=1) == labels).float().mean().item()
    card = features.check("mini-features").card
    assert correct == pytest.approx(card["reaches"]["top1"], abs=0.0021)  # one image of 500, another machine's rounding
    assert card["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert card["data"]["name"] == data.manifest.name


def test_unknown_network():
    with pytest.raises(UnknownNameError, match="did you mean mini-features"):
        features.load("mini-feature", CPU)


def test_altered_weights_are_refused(tmp_path, monkeypatch):
    original = registry.package_folder("tokenmark") / "weights"
    copies = tmp_path / "weights"
    copies.mkdir()
    for kind in ("toml", "safetensors"):
        (copies / f"mini-features.{kind}").write_bytes((original / f"mini-features.{kind}").read_bytes())
    monkeypatch.setattr(registry, "package_folder", lambda _package: tmp_path)
    assert features.check("mini-features").name == "mini-features"
    path = copies / "mini-features.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    for act in (lambda: features.check("mini-features"), lambda: features.load("mini-features", CPU)):
        with pytest.raises(WeightsError, match="altered"):
            act()
