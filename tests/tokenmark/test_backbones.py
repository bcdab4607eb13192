"""Classifiers by name."""

import pytest
import torch

from tokenmark import backbones, weights
from tokenmark.data import catalog
from tokenmark.errors import UnknownNameError

CPU = torch.device("cpu")


def test_unknown():
    with pytest.raises(UnknownNameError, match="unknown model 'vit-mimi': did you mean vit-mini"):
        backbones.get("vit-mimi")


def test_images_are_normalised_before_the_model_sees_them():
    backbone = backbones.Backbone({}, "none", mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2))
    images = torch.rand(2, 3, 4, 4)
    seen = backbones.Normalised(backbone, torch.nn.Identity())(images)
    for colour, (mean, std) in enumerate(zip(backbone.mean, backbone.std, strict=True)):
        assert torch.allclose(seen[:, colour], (images[:, colour] - mean) / std)
    assert backbones.Normalised(backbone, torch.nn.Identity()).state_dict() == {}


def test_loaded_weights_reach_what_their_card_says(digits_folder):
    model = backbones.load("vit-mini", CPU)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    card = weights.bundled("tokenmark", "vit-mini").card
    assert card["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    call = backbones.Normalised(backbones.get("vit-mini"), model)
    images, labels = catalog.load("digits-32", "val", digits_folder).batch(0, 500)
    with torch.inference_mode():
        right = torch.cat([call(part).argmax(dim=1) for part in images.split(100)]) == labels
    assert right.float().mean().item() == pytest.approx(card["reaches"]["top1"], abs=0.0021)
