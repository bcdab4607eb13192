"""Classifiers by name."""

import pytest
import timm
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


def test_a_model_of_timms_with_random_weights():
    backbone = backbones.get("test_vit.random")
    released = timm.get_pretrained_cfg("test_vit")
    assert (backbone.weights, backbone.shape, backbone.mean) == (None, released.input_size, released.mean)
    model = backbones.load("test_vit.random", CPU, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    scores = backbones.Normalised(backbone, model)(torch.rand(2, *backbone.shape))
    assert scores.shape == (2, 1000)
    assert scores.dtype == torch.bfloat16


def test_drawing_weights_leaves_everybody_elses_random_numbers_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    backbones.load("test_vit.random", CPU, seed=9)
    assert torch.equal(torch.rand(3), expected)


def test_layer_scale_does_not_hide_the_blocks():
    model = backbones.load("deit3_small_patch16_224.random", CPU)
    scales = [parameter for name, parameter in model.named_parameters() if name.endswith("gamma")]
    assert len(scales) == 24
    assert all(torch.equal(scale, torch.ones_like(scale)) for scale in scales)


def test_an_unknown_timm_model():
    with pytest.raises(UnknownNameError, match="unknown timm model 'tst_vit': did you mean test_vit"):
        backbones.get("tst_vit.random")
