"""Zero-shot classifiers against open_clip's own way to make them, from a small checkpoint that lies on the shelf."""

import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from tokenmark import backbones, jobs, suites, zeroshot
from tokenmark.contracts import Release
from tokenmark.errors import MethodError, SuiteError, UnknownNameError, WeightsError
from tokenmark.shelf import Shelf

NAME = "clip:made-clip/made"
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A small CLIP with drawn weights, known to open_clip by name, its checkpoint on a shelf."""
    config = tmp_path / "configs" / "made-clip.json"
    config.parent.mkdir()
    config.write_text(json.dumps(CONFIG))
    open_clip.add_model_config(config)
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda name: ["made"] * (name == "made-clip"))
    monkeypatch.setattr(zeroshot, "release", lambda _name: Release("made/clip", zeroshot.FILE))
    few = open_clip.IMAGENET_CLASSNAMES[:20]
    monkeypatch.setattr(open_clip, "IMAGENET_CLASSNAMES", few)
    monkeypatch.setattr(zeroshot, "CLASSES", 20)
    zeroshot.prompts.cache_clear()
    torch.manual_seed(0)
    model = open_clip.create_model("made-clip").eval()
    shelf = Shelf(tmp_path / "weights")
    place = shelf.folder / "made--clip" / zeroshot.FILE
    place.parent.mkdir(parents=True)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, place)
    yield model, shelf
    zeroshot.prompts.cache_clear()


def test_scores_are_those_of_open_clip(made):
    model, shelf = made
    images = torch.rand(3, 3, 32, 32)
    network = backbones.load(NAME, torch.device("cpu"), shelf=shelf)
    head = backbones.head_of(NAME, torch.device("cpu"), shelf=shelf)
    tokenizer = open_clip.get_tokenizer("made-clip")
    names, templates = open_clip.IMAGENET_CLASSNAMES, open_clip.OPENAI_IMAGENET_TEMPLATES
    with torch.no_grad():
        classes = open_clip.build_zero_shot_classifier(model, tokenizer, names, templates)
        scores = model.logit_scale.exp() * model.encode_image(images, normalize=True) @ classes
        torch.testing.assert_close(head(network(images)), scores, rtol=1e-4, atol=1e-4)


def test_classes_are_read_once_and_kept_by_hash(made, monkeypatch):
    _, shelf = made
    first = zeroshot.head(NAME, shelf)
    monkeypatch.setattr(zeroshot, "embedded", lambda *_: pytest.fail("read again"))
    again = zeroshot.head(NAME, shelf)
    assert torch.equal(first.classes, again.classes)
    assert first.scale == again.scale
    (kept,) = (shelf.folder / zeroshot.CACHE).iterdir()
    save_file({"other": torch.ones(1)}, kept)
    with pytest.raises(WeightsError, match="delete it"):
        zeroshot.head(NAME, shelf)


def test_other_prompts_are_other_classes(made, monkeypatch):
    _, shelf = made
    zeroshot.head(NAME, shelf)
    monkeypatch.setattr(open_clip, "OPENAI_IMAGENET_TEMPLATES", [lambda name: f"a {name}."])
    zeroshot.prompts.cache_clear()
    zeroshot.head(NAME, shelf)
    assert len(list((shelf.folder / zeroshot.CACHE).iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("clip:ViT-B-61/openai", UnknownNameError, "did you mean ViT-B-16"),
        ("clip:ViT-B-16/opneai", UnknownNameError, "did you mean openai"),
        ("clip:ViT-B-16", MethodError, "does not say which weights: choose clip:ViT-B-16/openai"),
    ],
)
def test_refuses_names_that_are_not_known(name, error, message):
    with pytest.raises(error, match=message) as caught:
        backbones.get(name)
    assert "\n" not in str(caught.value)


def test_published_weights_are_told_by_repository_and_drawn_ones_have_none():
    assert backbones.get("clip:ViT-B-16/openai").release.repo == "timm/vit_base_patch16_clip_224.openai"
    assert backbones.get("clip:ViT-B-16/random").random


def test_a_data_set_of_other_classes_is_refused():
    suite = suites.Suite.model_validate(
        {
            "version": 1,
            "title": "made",
            "protocol": "mini",
            "batch_size": 4,
            "timing": {"batches": [1], "min_seconds": 1.0, "min_rounds": 2},
            "jobs": [{"task": "classification", "method": "none", "model": "clip:ViT-B-16/openai"}],
        }
    )
    with pytest.raises(SuiteError, match="is told ImageNet's classes"):
        jobs.check_names(suite)
