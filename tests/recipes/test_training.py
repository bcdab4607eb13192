"""The training loop: what was stopped ends as what was not, and the recipes' losses do what they say."""

import dataclasses

import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn import functional

from recipes.mini import __main__ as command
from recipes.mini import cards, generators, tokenizers, training, views
from recipes.mini.training import Batch, Recipe
from tests.tokenmark import make
from tokenmark import registry, weights
from tokenmark.data import prepared


class Model(nn.Module):
    """Something that learns, with a buffer that an average must copy and not mix."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 3))

    def forward(self, images):
        return self.layers(images)


def loss(model, batch):
    return functional.cross_entropy(model(batch.images), batch.labels)


RECIPE = Recipe(name="made", package="reference_impls", build=Model, loss=loss, epochs=4, batch=4, seed=3)


@pytest.fixture
def data(tmp_path):
    make.data_set(tmp_path / "made")
    return prepared.load(tmp_path / "made")


def run(recipe, data, place):
    return training.train(recipe, data, place, torch.device("cpu")).state_dict()


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_stopped_training_ends_as_an_undisturbed_one(data, tmp_path, monkeypatch, ema):
    recipe = dataclasses.replace(RECIPE, ema=ema)
    whole = run(recipe, data, tmp_path / "whole.pt")
    monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", 0.0)
    steps = []

    def killed(*arguments):
        steps.append(1)
        if len(steps) == 8:  # in the middle of the third epoch of three steps each
            raise KeyboardInterrupt
        return step(*arguments)

    step = training._step
    monkeypatch.setattr(training, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, data, tmp_path / "stopped.pt")
    monkeypatch.setattr(training, "_step", step)
    resumed = run(recipe, data, tmp_path / "stopped.pt")
    assert resumed.keys() == whole.keys()
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name


def test_it_learns(data, tmp_path):
    before = Model()
    images, labels = data.batch(0, len(data))
    after = Model()
    after.load_state_dict(run(dataclasses.replace(RECIPE, epochs=30, augment=False, ema=None), data, tmp_path / "a.pt"))
    with torch.inference_mode():
        first, last = (functional.cross_entropy(model.eval()(images), labels) for model in (before, after))
    assert last < 0.5 * first


def test_augmented_digits_stay_images_and_follow_the_seed(data):
    images, _ = data.batch(0, 12)
    first, again, other = (training.augmented(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert first.shape == images.shape
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_rate_rises_then_falls():
    rates = [training._rate(RECIPE, step / 100) for step in range(101)]
    peak = rates.index(max(rates))
    assert peak == 5
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[peak] == pytest.approx(RECIPE.lr)
    assert rates[-1] == pytest.approx(0.02 * RECIPE.lr)


def batch_of(images, progress=0.0, seed=0):
    labels = torch.zeros(len(images), dtype=torch.long)
    return Batch(images, labels, progress, torch.Generator().manual_seed(seed), labels)


def test_tail_drop_keeps_first_tokens_of_every_length():
    latents = torch.arange(8 * 16, dtype=torch.float32).reshape(8, 16, 1)
    seen = set()
    for seed in range(200):
        parts = tokenizers._parts(latents, batch_of(latents, seed=seed), tail_drop=True)
        assert [len(part) for part in parts] == [2, 2, 2, 2]
        for part, whole in zip(parts, latents.chunk(4), strict=True):
            assert torch.equal(part, whole[:, : part.shape[1]])
            seen.add(part.shape[1])
    assert seen == set(range(1, 17))
    assert tokenizers._parts(latents, batch_of(latents), tail_drop=False) == [latents]


def test_unused_codes_move_onto_latents_and_used_ones_stay(monkeypatch):
    monkeypatch.setattr(tokenizers, "REVIVE_EVERY", 1)
    quantizer = tokenizers.MASKGIT_VQ.build(**tokenizers.MASKGIT_VQ.variants["mini"].config).quantize
    before = quantizer.embedding.weight.detach().clone()
    latents = torch.randn(2, 5, before.shape[1]) + 10
    codes = torch.tensor([[0, 1], [1, 2]])
    tokenizers.revive(quantizer, lambda: latents, codes, batch_of(latents))
    after = quantizer.embedding.weight.detach()
    assert torch.equal(after[:3], before[:3])
    rows = {tuple(row.tolist()) for row in latents.reshape(-1, before.shape[1])}
    assert all(tuple(row.tolist()) in rows for row in after[3:])
    quantizer.embedding.weight.data.copy_(before)
    tokenizers.revive(quantizer, lambda: latents, codes, batch_of(latents, progress=0.71))
    assert torch.equal(quantizer.embedding.weight, before)


def test_weights_and_card_are_accepted_by_the_loader(data, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "package_folder", lambda _package: tmp_path)
    recipe = dataclasses.replace(RECIPE, reaches=lambda _model, held_out: {"n": float(len(held_out))}, source='a "b"')
    model = Model()
    assert cards.write(recipe, model, data, data) == {"n": 12.0}
    found = weights.bundled("reference_impls", "made")
    assert found.card["recipe"]["source"] == 'a "b"'
    assert found.card["data"]["train_manifest_sha256"] == data.manifest.sha256
    assert found.card["reaches"] == {"n": 12.0}
    again = Model()
    weights.load_strict(again, found.path)
    assert torch.equal(again.layers[0].weight, model.layers[0].weight)


def test_an_unknown_recipe_is_one_line_and_status_2():
    ended = CliRunner().invoke(command.main, ["titok-mini"])
    assert ended.exit_code == 2
    assert "titok-mini-16" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_what_is_trained_already_is_left_alone(tmp_path):
    ended = CliRunner().invoke(command.main, ["--data", str(tmp_path / "none"), "--state", str(tmp_path / "state")])
    assert ended.exit_code == 0
    assert ended.stdout.count("its weights are here already") == len(command.RECIPES)
    assert not (tmp_path / "none").exists()


def test_views_are_encoded_once_and_do_not_depend_on_when():
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    encoded = []

    def encode(seen):
        encoded.append(len(seen))
        return seen.flatten(1)

    def wanted(kept, seed, *places):
        indices = torch.tensor(places)
        return kept.of(Batch(images[indices], indices, 0.0, torch.Generator().manual_seed(seed), indices))

    kept = views.Views(encode, 2)
    first = [wanted(kept, seed, 0, 1, 2, 3) for seed in range(20)]
    assert sum(encoded) == 8  # two views of each of four images
    assert len({tuple(row.tolist()) for rows in first for row in rows}) == 8
    again = views.Views(encode, 2)
    wanted(again, 5, 4, 3)
    for seed in reversed(range(20)):
        torch.testing.assert_close(wanted(again, seed, 0, 1, 2, 3), first[seed])


@pytest.mark.parametrize("recipe", [generators.LLAMAGEN_MINI, generators.DIT_MINI], ids=lambda recipe: recipe.name)
def test_a_generator_learns_all_its_weights_and_drops_classes(monkeypatch, recipe):
    seen = []

    def some_dropped(labels, dropped, share, _generator):
        seen.append((len(labels), dropped, share))
        return labels

    monkeypatch.setattr(generators, "some_dropped", some_dropped)
    model = recipe.build()
    recipe.loss(model, batch_of(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)))).backward()
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in learning)
    assert seen == [(4, 10, 0.1)]
