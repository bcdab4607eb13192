"""The whole way from image to feature against the libraries' own extractors, all filled from one seeded file."""

import pytest
import pytorch_fid.inception
import torch
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchmetrics.image.fid import NoTrainInceptionV3

from tests.tokenmark.extractors.conftest import pictures
from tokenmark import extractors
from tokenmark.errors import UnknownNameError, WeightsError
from tokenmark.extractors import inception
from tokenmark.files import sha256_of

SIDES = [64, 256, 299, 512]


def difference(got, expected):
    """The largest difference beside the largest value."""
    assert got.shape == expected.shape
    assert got.dtype == torch.float32
    return ((got - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(scope="module")
def ours(load_inception):
    return load_inception()


@pytest.fixture(scope="module")
def fidelity(inception_file):
    return FeatureExtractorInceptionV3("theirs", ["2048", "logits_unbiased"], str(inception_file))


@pytest.mark.parametrize("side", SIDES)
def test_equals_torch_fidelity(ours, fidelity, side):
    images = pictures(side)
    with torch.inference_mode():
        got, (features, logits) = ours(images), fidelity(images)
    assert features.std(dim=0).median() > 1e-3 * features.abs().max()  # two images are told apart
    assert difference(got.features, features) < 1e-4
    assert difference(got.logits, logits) < 1e-4


def test_equals_torch_fidelity_in_float64(load_inception, inception_file):
    images = pictures(64)
    theirs = FeatureExtractorInceptionV3(
        "theirs", ["2048"], str(inception_file), feature_extractor_internal_dtype="float64"
    )
    with torch.inference_mode():
        got, (features,) = load_inception(dtype=torch.float64).features(images), theirs(images)
    assert difference(got, features) < 1e-6


@pytest.fixture(scope="module")
def antialiased(load_inception):
    return load_inception(resize="antialiased")


@pytest.fixture(scope="module")
def torchmetrics(inception_file):
    return NoTrainInceptionV3("theirs", ["2048"], str(inception_file))


@pytest.mark.parametrize("side", SIDES)
def test_antialiased_equals_torchmetrics(antialiased, ours, torchmetrics, side):
    images = pictures(side)
    with torch.inference_mode():
        got, features, plain = antialiased.features(images), torchmetrics(images), ours.features(images)
    assert difference(got, features) < 1e-5
    if side != 299:  # where torchmetrics' own test looks, no resize happens
        assert difference(plain, features) > 1e-3


@pytest.mark.parametrize("side", [64, 512])
def test_floats_equal_pytorch_fid(load_inception, inception_file, side, monkeypatch):
    """Reconstructions that are never rounded, resized between pixel centres, and mapped to [-1, 1]."""
    monkeypatch.setattr(
        pytorch_fid.inception, "load_state_dict_from_url", lambda *_args, **_more: torch.load(inception_file)
    )
    theirs = pytorch_fid.inception.InceptionV3().eval()
    images = pictures(side, dtype=torch.float32) * 0.9 + 0.0123
    with torch.inference_mode():
        got = load_inception("inception-pytorch-fid").features(images)
        (features,) = theirs(images)
    assert difference(got, features.flatten(1)) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_floats_of_255ths_are_their_grey_levels(ours, dtype):
    with torch.inference_mode():
        assert difference(ours.features(pictures(64, dtype=dtype)), ours.features(pictures(64))) < 1e-5


def test_spatial_features_are_the_first_channels_of_mixed_6(ours, fidelity):
    seen = []
    hook = fidelity.Mixed_6d.branch1x1.register_forward_hook(lambda _module, _given, out: seen.append(out))
    images = pictures(299)
    with torch.inference_mode():
        got = ours(images).spatial
        fidelity(images)
    hook.remove()
    assert got.shape == (2, 2023)
    for row in (0, 5, 16):
        for channel in range(7):  # as a TensorFlow array (17, 17, 192)[..., :7] lies flattened
            where = (row * 17 + 3) * 7 + channel
            assert torch.allclose(got[:, where], seen[0][:, channel, row, 3], atol=1e-5)


def test_it_is_frozen(ours):
    assert not ours.training
    assert not any(parameter.requires_grad for parameter in ours.parameters())


def test_a_file_of_another_network(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"conv.weight": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match=r"other\.pth does not fit Inception v3: .*Missing key") as error:
        extractors.load("inception", torch.device("cpu"), weights=path, sha256=sha256_of(path))
    assert "\n" not in str(error.value)


def test_the_published_file_is_wanted_and_nothing_else(inception_file):
    assert inception.FILE.name == f"weights-inception-2015-12-05-{inception.FILE.sha256[:8]}.pth"
    assert len(inception.FILE.sha256) == 64
    with pytest.raises(WeightsError, match=r"is another file or truncated.*wanted is 6726825d0af5"):
        extractors.load("inception", torch.device("cpu"), weights=inception_file)


def test_unknown_names(load_inception):
    with pytest.raises(UnknownNameError, match="did you mean inception"):
        extractors.recipe("inceptoin")
    with pytest.raises(UnknownNameError, match="unknown resize"):
        load_inception(resize="nearest")
