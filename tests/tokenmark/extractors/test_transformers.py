"""DINOv2 and CLIP against timm and open_clip themselves, with drawn weights in small sizes of the same families."""

import functools
import json

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.transforms import functional as tv

from recipes.drawn import drawn
from tests.tokenmark.extractors.conftest import pictures
from tokenmark import extractors, resize
from tokenmark.errors import WeightsError
from tokenmark.extractors import clip, dinov2
from tokenmark.extractors.base import Recipe
from tokenmark.files import sha256_of

CPU = torch.device("cpu")
SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 3}


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Save a state, and load it as the extractor `build` makes of it."""

    def load(build, state, **options):
        path = tmp_path / "net.safetensors"
        save_file(state, path)
        recipe = Recipe(dinov2.VIT_L14.file, "pil-bicubic", build)
        monkeypatch.setattr(extractors, "recipe", lambda _name: recipe)
        return extractors.load("made", CPU, weights=path, sha256=sha256_of(path), **options)

    return load


def test_dinov2_gives_the_class_token_behind_the_last_norm(load, monkeypatch):
    create = functools.partial(timm.create_model, "vit_small_patch14_dinov2", **SMALL, init_values=0.5)
    monkeypatch.setattr(dinov2.timm, "create_model", lambda _name, **more: create(**more))
    state = drawn(create(img_size=224, num_classes=0))
    images = pictures(64)
    got = load(functools.partial(dinov2.build, "vit_small_patch14_dinov2"), state)
    theirs = create(img_size=224, num_classes=0).eval()
    theirs.load_state_dict(state)
    levels = resize.pil_bicubic(images.float(), 224) / 255
    with torch.inference_mode():
        expected = theirs.forward_features(tv.normalize(levels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))[:, 0]
        features = got.features(images)
    assert features.shape == (2, 48)
    assert features.std(dim=0).median() > 1e-3
    assert torch.allclose(features, expected, atol=1e-4)


def test_dinov2_takes_the_published_files_positions(load, monkeypatch):
    """They are of 518 px: 37 x 37 patches and the class token."""
    create = functools.partial(timm.create_model, "vit_small_patch14_dinov2", **SMALL)
    monkeypatch.setattr(dinov2.timm, "create_model", lambda _name, **more: create(**more))
    state = drawn(create(img_size=518, num_classes=0))
    assert state["pos_embed"].shape == (1, 1370, 48)
    got = load(functools.partial(dinov2.build, "vit_small_patch14_dinov2"), state)
    assert got.network.pos_embed.shape == (1, 257, 48)
    assert torch.allclose(got.network.pos_embed[:, 0], state["pos_embed"][:, 0])
    assert got.features(pictures(32)).isfinite().all()


@pytest.fixture
def small_clip(tmp_path):
    """A small transformer of open_clip's, text side and all."""
    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 56, "layers": 2, "width": 64, "head_width": 32, "patch_size": 14},
        "text_cfg": {"context_length": 8, "vocab_size": 16, "width": 32, "heads": 2, "layers": 1},
    }
    (tmp_path / "made-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    return open_clip.create_model("made-clip", pretrained=None, force_quick_gelu=True).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_clip_gives_open_clips_image_embedding(load, small_clip, dtype):
    state = drawn(small_clip)
    small_clip.load_state_dict(state)
    images = pictures(64)
    got = load(functools.partial(clip.build, "made-clip"), state, dtype=dtype)
    levels = resize.pil_bicubic(images.to(dtype), 56) / 255
    normal = tv.normalize(levels, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    with torch.inference_mode():
        expected = small_clip.to(dtype).encode_image(normal).float()
        features = got.features(images)
    assert features.shape == (2, 24)
    assert features.std(dim=0).median() > 1e-3
    assert torch.allclose(features, expected, atol=1e-4)


def test_weights_of_another_model(load, small_clip):
    state = drawn(small_clip)
    del state["visual.proj"]
    with pytest.raises(WeightsError, match=r"1 missing \(proj\)"):
        load(functools.partial(clip.build, "made-clip"), state)


@pytest.mark.parametrize("name", extractors.PLACES)
def test_every_name_has_a_recipe(name):
    recipe = extractors.recipe(name)
    assert recipe.resize in resize.RESIZES
    assert recipe.file.key.endswith((".pth", ".safetensors"))


def test_the_architectures_exist():
    assert "vit_large_patch14_dinov2" in timm.list_models("vit_large_patch14*")
    vision = open_clip.get_model_config("ViT-L-14")["vision_cfg"]
    assert (vision["layers"], vision["width"], vision["patch_size"]) == (24, 1024, 14)
    assert not set(vision) - {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"}
