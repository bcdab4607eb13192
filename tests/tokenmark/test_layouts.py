"""Checkpoints as their releases lay them out: wrappers, leftovers of training, averaged weights, other names."""

import argparse
import json

import pytest
import safetensors.torch
import torch
from torch import nn

from reference_impls.tokenizers.titok import METHOD as TITOK
from tests.tokenmark.test_weights import Harm
from tokenmark import layouts
from tokenmark.contracts import Layout, Variant
from tokenmark.errors import WeightsError


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))


@pytest.fixture
def other():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))


def same(one, two):
    return all(torch.equal(value, two.state_dict()[key]) for key, value in one.state_dict().items())


def saved(tmp_path, content, name="file.pt"):
    path = tmp_path / name
    torch.save(content, path)
    return path


def test_tensors_at_the_top_and_as_safetensors(tmp_path, model, other):
    layouts.load(other, saved(tmp_path, model.state_dict()), Layout())
    assert same(model, other)
    safetensors.torch.save_file(
        {key: value + 1 for key, value in model.state_dict().items()}, tmp_path / "a.safetensors"
    )
    layouts.load(other, tmp_path / "a.safetensors", Layout())
    assert torch.equal(other[0].weight, model[0].weight + 1)


def test_the_first_wrapper_that_is_there(tmp_path, model, other):
    content = {"model": other.state_dict(), "ema": model.state_dict(), "step": 7, "args": argparse.Namespace(lr=1e-4)}
    path = saved(tmp_path, content)
    target = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    layouts.load(target, path, Layout(wrappers=("ema", "model")))
    assert same(model, target)
    layouts.load(target, path, Layout(wrappers=("model", "ema")))
    assert same(other, target)
    with pytest.raises(WeightsError, match="not hold this model's tensors at its top, but: model, ema, step, args"):
        layouts.load(target, path, Layout())
    layouts.load(target, saved(tmp_path, {"state_dict": model.state_dict(), "epoch": 1}), Layout())
    assert same(model, target)


def test_leftovers_of_training_are_left_out(tmp_path, model, other):
    state = model.state_dict() | {"loss.net.weight": torch.zeros(2), "optimizer": torch.zeros(1)}
    path = saved(tmp_path, {"state_dict": state})
    layouts.load(other, path, Layout(ignored=("loss.", "optimizer")))
    assert same(model, other)
    with pytest.raises(WeightsError, match=r"1 unexpected \(optimizer\)"):
        layouts.load(other, path, Layout(ignored=("loss.",)))


def test_averaged_weights_take_the_place_of_plain_ones(tmp_path, model, other):
    averaged = {f"model_ema.{key.replace('.', '')}": value for key, value in model.state_dict().items()}
    plain = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)).state_dict()
    path = saved(tmp_path, {"state_dict": {**plain, **averaged, "model_ema.decay": torch.tensor(0.999)}})
    layouts.load(other, path, Layout(shadow="model_ema."))
    assert same(model, other)


def test_names_are_translated_one_to_one(tmp_path, model, other):
    state = {f"net.layers.{key}": value for key, value in model.state_dict().items()}
    layout = Layout(renames=((r"^net\.layers\.", ""),))
    layouts.load(other, saved(tmp_path, state), layout)
    assert same(model, other)
    with pytest.raises(WeightsError, match=r"holds 0\.weight twice"):
        layouts.tensors(saved(tmp_path, {**state, "0.weight": torch.zeros(1)}), layout)


def test_code_in_a_checkpoint_is_refused(tmp_path, other, capsys):
    path = saved(tmp_path, {"state_dict": other.state_dict(), "callbacks": Harm()})
    with pytest.raises(WeightsError, match="cannot be read as tensors alone"):
        layouts.load(other, path, Layout())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "content", [[1, 2], {"state_dict": {"a": "text"}}, {"model": 3}, {"a": torch.zeros(1), "b": 2}]
)
def test_what_holds_no_named_tensors(tmp_path, other, content):
    with pytest.raises(WeightsError) as caught:
        layouts.load(other, saved(tmp_path, content), Layout())
    assert "\n" not in str(caught.value)


RELEASED = {
    "model": {
        "vq_model": {
            "codebook_size": 4096,
            "token_size": 12,
            "use_l2_norm": True,
            "vit_enc_model_size": "small",
            "vit_dec_model_size": "small",
            "vit_enc_patch_size": 16,
            "vit_dec_patch_size": 16,
            "num_latent_tokens": 128,
        }
    },
    "dataset": {"preprocessing": {"crop_size": 256}},
}
"""What TiTok-S-128 says of itself."""


class TestConfiguration:
    """A config.json beside the weights."""

    def arguments(self, tmp_path, config, variant="s128"):
        (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        return layouts.arguments(TITOK, TITOK.variants[variant], tmp_path / "model.safetensors", f"titok/{variant}")

    def test_that_agrees_adds_what_the_variant_leaves_open(self, tmp_path):
        found = self.arguments(tmp_path, RELEASED)
        assert found["num_latent_tokens"] == 128
        assert TITOK.build(**{**found, "pixel": None}).info.max_tokens == 128

    def test_of_another_variant_is_refused(self, tmp_path):
        with pytest.raises(WeightsError, match=r"is not of titok/b64: encoder is .* there, and .* in this variant"):
            self.arguments(tmp_path, RELEASED, "b64")

    @pytest.mark.parametrize("config", ["{", "[]", "{}", '{"model": 3}'])
    def test_that_is_none_is_one_line(self, tmp_path, config):
        with pytest.raises(WeightsError, match=r"config\.json is no configuration of titok") as caught:
            self.arguments(tmp_path, config)
        assert "\n" not in str(caught.value)

    def test_is_not_needed(self, tmp_path):
        variant = Variant({"a": 1})
        assert layouts.arguments(TITOK, variant, tmp_path / "model.safetensors", "x") == {"a": 1}
        assert layouts.arguments(TITOK, variant, None, "x") == {"a": 1}
