"""LPIPS against its authors' package, both on one drawn backbone, with the linear layers that each of them carries."""

import shutil

import lpips as authors
import pytest
import torch
import torchvision

from tests.tokenmark.measures.test_pixels import pairs
from tokenmark import pins
from tokenmark.errors import DataError, MissingWeightsError, WeightsError
from tokenmark.files import sha256_of
from tokenmark.measures import lpips, pixels
from tokenmark.pins import Pin
from tokenmark.shelf import Shelf

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["alex", "vgg"])
def backbone(request, tmp_path_factory):
    """A net's name, its convolutions, and a file such as torchvision publishes."""
    torch.manual_seed(0)
    net = {"alex": torchvision.models.alexnet, "vgg": torchvision.models.vgg16}[request.param]
    features = net(weights=None, init_weights=False).features if request.param == "vgg" else net(weights=None).features
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / "net.pth"
    torch.save({**state, "classifier.1.weight": torch.zeros(2, 2)}, path)
    return request.param, features, path


@pytest.fixture(scope="module")
def ours(backbone):
    net, _, path = backbone
    return lpips.load(net, CPU, weights=path, sha256=sha256_of(path))


def filled(net, features):
    """The authors' network on these convolutions."""
    theirs = authors.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
    layers = dict(features.named_children())
    for _, part in sorted(theirs.net.named_children()):
        for number, layer in part.named_children():
            layer.load_state_dict(layers[number].state_dict())
    return theirs


@pytest.mark.filterwarnings("ignore::UserWarning:torchvision")
def test_equals_the_authors(backbone, ours):
    images, originals = pairs(0, side=64)
    expected = filled(*backbone[:2])(images, originals, normalize=True).reshape(-1)
    assert torch.allclose(ours(images, originals), expected, rtol=1e-4, atol=1e-7)
    assert (expected.diff() > 0).all()  # each pair is farther apart than the one before


def test_no_distance_between_equals_and_none_of_order(ours):
    images, originals = pairs(1, side=64)
    assert torch.equal(ours(originals, originals), torch.zeros(5))
    assert torch.allclose(ours(images, originals), ours(originals, images))


def test_the_mean_over_images(ours):
    images, originals = pairs(2, side=64)
    measure = pixels.PixelMeasure("lpips", ours)
    for part in (slice(0, 4), slice(4, 5)):
        measure.update(images[part], originals[part])
    (value,) = measure.compute()
    assert (value.name, value.n) == ("lpips", 5)
    assert value.value == pytest.approx(ours(images, originals).mean().item(), rel=1e-5)


def test_images_too_small_for_the_backbone(ours, backbone):
    smallest = lpips.SMALLEST[backbone[0]]
    assert ours(*torch.rand(2, 1, 3, smallest, smallest)).shape == (1,)
    with pytest.raises(DataError, match=f"at least {smallest} px, not {smallest - 1} x 40"):
        ours(*torch.rand(2, 1, 3, smallest - 1, 40))


def test_the_published_file_is_wanted(backbone, tmp_path):
    net, _, path = backbone
    assert f"-{lpips.FILES[net].sha256[:8]}.pth" in lpips.FILES[net].name
    with pytest.raises(WeightsError, match=f"wanted is {lpips.FILES[net].sha256[:12]}"):
        lpips.load(net, CPU, weights=path)
    assert lpips.FILES[net].url.endswith(f"/{lpips.FILES[net].name}")
    with pytest.raises(WeightsError, match=rf"absent\.pth is missing: it was to stand for {lpips.FILES[net].name}"):
        lpips.load(net, CPU, weights=tmp_path / "absent.pth")


def test_a_backbone_that_is_not_on_the_shelf(backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    net, shelf = backbone[0], Shelf(tmp_path)
    with pytest.raises(MissingWeightsError, match=f"lpips-{net} has no weights here.*weights fetch lpips-{net}`"):
        lpips.load(net, CPU, shelf=shelf)
    shutil.copy(backbone[2], tmp_path / lpips.FILES[net].name)
    with pytest.raises(WeightsError, match="is another file or truncated"):
        lpips.load(net, CPU, shelf=shelf)
    pins.add(tmp_path, {lpips.FILES[net].key: Pin(sha256=sha256_of(backbone[2]))})
    assert "not comparable" in lpips.check(net, shelf).warnings[0]
    assert isinstance(lpips.load(net, CPU, shelf=shelf), lpips.LPIPS)


def test_a_file_of_another_network(backbone, tmp_path):
    net, _, path = backbone
    state = torch.load(path)
    state["features.99.weight"] = state.pop("features.0.weight")
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"1 missing \(slice1\.0\.weight\); 1 unexpected \(99\.weight\)"):
        lpips.load(net, CPU, weights=tmp_path / "other.pth", sha256=sha256_of(tmp_path / "other.pth"))
