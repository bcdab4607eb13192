"""Classifiers by name."""

import pytest
import safetensors.torch
import timm
import torch

from tokenmark import backbones, weights
from tokenmark.data import catalog
from tokenmark.errors import MethodError, MissingWeightsError, UnknownNameError, WeightsError
from tokenmark.shelf import Shelf

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


@pytest.mark.parametrize(
    ("name", "side", "mean"),
    [
        ("deit_small_patch16_224.fb_in1k", 224, (0.485, 0.456, 0.406)),
        ("vit_base_patch16_224.augreg_in21k_ft_in1k", 224, (0.5, 0.5, 0.5)),
        ("vit_large_patch16_384.augreg_in21k_ft_in1k", 384, (0.5, 0.5, 0.5)),
    ],
)
def test_a_released_classifier_is_what_its_tag_says(name, side, mean):
    backbone = backbones.get(name)
    assert backbone.release.key == f"timm/{name}/model.safetensors"
    assert (backbone.weights, backbone.random, backbone.shape, backbone.mean) == (None, False, (3, side, side), mean)
    assert backbone.sizes["num_classes"] == 1000
    assert backbone.release.licence == "apache-2.0"


RELEASED = "test_vit.r160_in1k"


@pytest.fixture
def shelf(tmp_path):
    """A shelf with the smallest released classifier on it, of drawn weights."""
    path = tmp_path / "timm--test_vit.r160_in1k" / "model.safetensors"
    path.parent.mkdir()
    safetensors.torch.save_file(timm.create_model("test_vit").state_dict(), path)
    return Shelf(tmp_path)


def test_a_released_classifier_from_the_shelf(shelf):
    model = backbones.load(RELEASED, CPU, shelf=shelf)
    found = backbones.weights_of(RELEASED, shelf)
    written = safetensors.torch.load_file(found.path)
    assert all(torch.equal(value, written[key]) for key, value in model.state_dict().items())
    assert found.name == "timm/test_vit.r160_in1k/model.safetensors"
    written["extra"] = written.pop("cls_token")
    safetensors.torch.save_file(written, found.path)
    with pytest.raises(WeightsError, match=r"1 missing \(cls_token\); 1 unexpected \(extra\)"):
        backbones.load(RELEASED, CPU, shelf=shelf)


def test_a_released_classifier_that_is_not_here(tmp_path):
    with pytest.raises(MissingWeightsError, match=rf"{RELEASED} has no weights here: .*weights fetch {RELEASED}`"):
        backbones.load(RELEASED, CPU, shelf=Shelf(tmp_path))


def test_a_name_without_a_tag_lists_the_tags():
    with pytest.raises(MethodError) as error:
        backbones.get("vit_base_patch16_224")
    assert "does not say which weights: choose vit_base_patch16_224.augreg2_in21k_ft_in1k, " in str(error.value)
    assert str(error.value).endswith(" vit_base_patch16_224.random")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("deit_small_patch16_224.fb_in2k", "did you mean deit_small_patch16_224.fb_in1k"),
        (
            "deit_smal_patch16_224.fb_in1k",
            "unknown timm model 'deit_smal_patch16_224': did you mean deit_small_patch16_",
        ),
        ("deit_smal_patch16_224", "unknown model 'deit_smal_patch16_224': did you mean deit_small_patch16_224"),
    ],
)
def test_an_unknown_tag_or_model_suggests(name, message):
    with pytest.raises(UnknownNameError, match=message):
        backbones.get(name)


def test_a_release_without_classes_is_no_classifier():
    with pytest.raises(MethodError, match="was published without a classifier"):
        backbones.get("vit_large_patch14_dinov2.lvd142m")
