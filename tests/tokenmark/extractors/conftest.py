"""Seeded state files that stand for weights which cannot be had here."""

import math

import pytest
import torch
from torch_fidelity import feature_extractor_inceptionv3 as port

from tokenmark import extractors
from tokenmark.files import sha256_of


def seeded(module, seed=0):
    """Every parameter and buffer drawn anew, so that activations neither vanish nor grow through ReLUs."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in module.state_dict().items():
        if not value.is_floating_point():
            state[key] = value
        elif value.ndim > 1:
            state[key] = torch.randn(value.shape, generator=generator) * math.sqrt(2.0 / value[0].numel())
        elif key.endswith(("running_var", "norm.weight", "bn.weight")):
            state[key] = 0.5 + torch.rand(value.shape, generator=generator)
        else:
            state[key] = 0.1 * torch.randn(value.shape, generator=generator)
    return state


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory):
    """Inception's state dictionary with drawn numbers, as torch-fidelity's own constructor reads it."""
    with pytest.MonkeyPatch.context() as patch:  # the constructor loads a state: keep it from looking for one
        patch.setattr(port, "load_state_dict_from_url", lambda *_args, **_more: {})
        patch.setattr(port.FeatureExtractorInceptionV3, "load_state_dict", lambda *_args: None)
        network = port.FeatureExtractorInceptionV3("inception", ["2048"])
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(seeded(network), path)
    return path


@pytest.fixture(scope="session")
def load_inception(inception_file):
    """`extractors.load` with the seeded file in the real one's place."""

    def load(name="inception", **options):
        digest = sha256_of(inception_file)
        return extractors.load(name, torch.device("cpu"), weights=inception_file, sha256=digest, **options)

    return load


def pictures(side, batch=2, dtype=torch.uint8):
    """Smooth images with noise on them, so that both low and high frequencies pass through a resize."""
    generator = torch.Generator().manual_seed(side)
    coarse = torch.rand(batch, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    images = (smooth + 0.2 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)
    levels = (images * 255).round()
    return levels.to(torch.uint8) if dtype == torch.uint8 else (levels / 255.0).to(dtype)
