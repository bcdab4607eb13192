"""Methods built from their names."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from reference_impls.reducers.tome import TomeSettings
from tests.reference_impls import vits
from tokenmark import backbones, build, registry, weights
from tokenmark.contracts import GeneratorMethod, Tokenizer, TokenizerMethod, Variant
from tokenmark.errors import MissingWeightsError, SuiteError, TokenmarkError, UnknownNameError
from tokenmark.shelf import Shelf

CPU = torch.device("cpu")
MINI = registry.get("maskgit-vq").variants["mini"]


def test_a_tokenizer_with_its_weights():
    module = build.tokenizer("maskgit-vq", "mini", CPU)
    assert isinstance(module, Tokenizer)
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())
    fresh = registry.get("maskgit-vq").build(**registry.get("maskgit-vq").variants["mini"].config)
    weights.load_strict(fresh, weights.bundled("reference_impls", "maskgit-vq-mini").path)
    assert all(torch.equal(value, module.state_dict()[key]) for key, value in fresh.state_dict().items())


def test_a_codec_needs_no_weights():
    codec = build.tokenizer("jpeg", "q50", CPU)
    assert isinstance(codec, Tokenizer)
    assert codec.info.parameters == 0


def test_a_variant_without_weights_here_is_refused(tmp_path, monkeypatch):
    """Random numbers must never be measured in silence."""
    with pytest.raises(MissingWeightsError, match="maskgit-vq/imagenet-f16-256 has no weights here"):
        build.tokenizer("maskgit-vq", "imagenet-f16-256", CPU, Shelf(tmp_path))
    bare = dataclasses.replace(registry.get("maskgit-vq"), variants={"bare": Variant(MINI.config)})
    monkeypatch.setattr(registry, "get", lambda _: bare)
    with pytest.raises(MissingWeightsError, match=r"maskgit-vq/bare has no weights here, and no hub has them .*--bare"):
        build.tokenizer("maskgit-vq", "bare", CPU, Shelf(tmp_path))


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="unknown variant of maskgit-vq 'minni': did you mean mini"):
        build.tokenizer("maskgit-vq", "minni", CPU)
    with pytest.raises(TokenmarkError, match="'tome' is a reducer, but a tokenizer is needed"):
        build.tokenizer("tome", "mini", CPU)
    with pytest.raises(TokenmarkError, match="'jpeg' is a tokenizer, but a generator is needed"):
        build.generator("jpeg", "q50", "mini", CPU)
    with pytest.raises(TokenmarkError, match="'jpeg' is a tokenizer, but a reducer is needed"):
        build.reduced("jpeg", nn.Identity(), {})


def test_generators_name_their_tokenizer_and_presets():
    method = registry.get_as(GeneratorMethod, "titok-maskgit")
    name, size = build.tokenizer_of(method, method.variants["mini-16"])
    assert size in registry.get_as(TokenizerMethod, name).variants
    with pytest.raises(SuiteError, match="names no tokenizer"):
        build.tokenizer_of(method, Variant())
    with pytest.raises(UnknownNameError, match="unknown preset of titok-maskgit 'mimi': did you mean mini"):
        build.preset_of(method, "mimi", "mini-16")
    with pytest.raises(SuiteError, match="preset mini of titok-maskgit is for mini-16: those for l32 are titok-l32-"):
        build.preset_of(method, "mini", "l32")
    assert build.preset_of(method, "mini", "mini-16") is method.presets["mini"]


def test_settings():
    tome = registry.get("tome")
    assert build.settings_of(tome, {}) == TomeSettings()
    assert build.settings_of(tome, {"r": 4, "per_block": [4, 2]}) == TomeSettings(r=4, per_block=(4, 2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        build.settings_of(tome, {}).r = 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rr": 4}, "unknown setting of tome 'rr'"),
        ({"proportionally": True}, "did you mean proportional"),
    ],
)
def test_an_unknown_setting_suggests(settings, message):
    with pytest.raises(UnknownNameError, match=message):
        build.settings_of(registry.get("tome"), settings)


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"r": "many"}, "r"),
        ({"r": 4.5}, "r"),
        ({"per_block": [1, "x"]}, r"per_block\.1"),
        ({"r": None}, "r"),
        ({"r": {}}, "r"),
    ],
)
def test_a_setting_of_a_wrong_type_says_where(settings, place):
    with pytest.raises(SuiteError, match=rf"setting {place} of tome: .*got") as error:
        build.settings_of(registry.get("tome"), settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("number", [math.nan, math.inf, [0.7, -math.inf]])
def test_a_setting_that_is_no_number_is_refused(number):
    with pytest.raises(SuiteError, match="setting keep_rate of random-drop: a number must be finite"):
        build.settings_of(registry.get("random-drop"), {"keep_rate": number})


def test_a_method_without_settings():
    assert build.settings_of(registry.get("none"), {}) is not None
    with pytest.raises(UnknownNameError, match="unknown setting of none 'r': there are none"):
        build.settings_of(registry.get("none"), {"r": 1})


def test_a_reduced_model_leaves_the_model_as_it_was():
    model = backbones.load("vit-mini", CPU)
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        before = model(images)
        reduced = build.reduced("tome", model, {"r": 4})
        assert reduced(images).shape == (2, 10)
        assert torch.equal(model(images), before)
        same = build.reduced("none", model, {})(images)
    assert torch.allclose(same, before, atol=1e-5)
    assert reduced.schedule[-1].mlp < reduced.schedule[0].attention


def test_an_impossible_budget_or_backbone_is_the_users_mistake():
    with pytest.raises(TokenmarkError, match="must not be negative"):
        build.reduced("tome", vits.served("vit"), {"r": -1})
    with pytest.raises(TokenmarkError):
        build.reduced("tome", nn.Linear(3, 3), {})
