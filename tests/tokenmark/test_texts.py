"""Text features for decoders that are told what an image shows."""

from dataclasses import fields

import open_clip
import pytest
import safetensors.torch
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from tokenmark import texts
from tokenmark.errors import MethodError, MissingWeightsError, UnknownNameError, WeightsError
from tokenmark.shelf import Shelf

CPU = torch.device("cpu")
SMALL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2},
}


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A small CLIP in the release's place, text and image side in one file as there."""
    torch.manual_seed(0)
    whole = CLIP(16, CLIPVisionCfg(**SMALL["vision_cfg"]), CLIPTextCfg(**SMALL["text_cfg"]), quick_gelu=True).eval()
    monkeypatch.setattr(open_clip, "get_model_config", lambda _: SMALL)
    shelf = Shelf(tmp_path)
    path = shelf.places(texts.TOWERS[texts.CLIP].release)[0]
    path.parent.mkdir(parents=True)
    state = {key: value.contiguous() for key, value in whole.state_dict().items()}
    safetensors.torch.save_file(state, path)
    return shelf, whole, path


def test_features_are_those_that_the_whole_model_pools(shelf):
    place, whole, _ = shelf
    features = texts.load(texts.CLIP, CPU, place).of(["A photo of a cat.", "A photo of a white shark."])
    assert features.shape == (2, 77, 24)
    tokens = open_clip.tokenize(["A photo of a cat.", "A photo of a white shark."])
    pooled = features[torch.arange(2), tokens.argmax(1)] @ whole.text_projection
    with torch.no_grad():
        expected = whole.encode_text(tokens)
    torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-5)


def test_classes_are_read_by_their_names_once_each(shelf):
    reader = texts.load(texts.CLIP, CPU, shelf[0])
    features = reader.of_classes(torch.tensor([0, 999, 0]))
    assert torch.equal(features[0], features[2])
    assert not torch.equal(features[0], features[1])
    assert set(reader.read) == {"", "A photo of a tench.", "A photo of a toilet paper."}
    for label in (-1, 1000):
        with pytest.raises(MethodError, match=f"no name is known of class {label}"):
            reader.of_classes(torch.tensor([label]))


def test_generators_are_told_states_and_the_whole_and_the_empty_text(shelf):
    """Beside open_clip's own model, run whole, and its own intermediate states."""
    place, whole, _ = shelf
    reader = texts.load(texts.CLIP, CPU, place)
    prompts = reader.prompts_of_classes(torch.tensor([999, 0, 999]))
    tokens = open_clip.tokenize(["A photo of a toilet paper.", "A photo of a tench.", "A photo of a toilet paper.", ""])
    with torch.no_grad():
        pooled = whole.encode_text(tokens)
        seen = []
        whole.ln_final.register_forward_hook(lambda _module, _args, out: seen.append(out))
        whole.transformer.resblocks[-1].register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
        whole.encode_text(tokens)
    inner, states = seen
    torch.testing.assert_close(torch.cat([prompts.pooled, prompts.empty_pooled]), pooled, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat([prompts.states, prompts.empty_states]), states, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat([prompts.inner, prompts.empty_inner]), inner, rtol=1e-4, atol=1e-5)
    assert torch.equal(prompts.states, reader.of_classes(torch.tensor([999, 0, 999])))
    assert prompts.pooled.norm(dim=1).sub(1.0).abs().min() > 1e-3  # not normalised


def test_no_classes_are_no_texts(shelf):
    reader = texts.load(texts.CLIP, CPU, shelf[0])
    prompts = reader.prompts_of_classes(torch.tensor([], dtype=torch.int64))
    assert prompts.states.shape == reader.of([]).shape == (0, 77, 24)
    assert prompts.pooled.shape == (0, 16)
    assert prompts.inner.shape == (0, 77, 24)
    assert prompts.empty_states.shape == prompts.empty_inner.shape == (1, 77, 24)


def shapes(prompts):
    return {part.name: tuple(getattr(prompts, part.name).shape) for part in fields(prompts)}


def test_drawn_prompts_are_shaped_like_those_that_are_read(shelf):
    read = texts.load(texts.CLIP, CPU, shelf[0]).prompts_of_classes(torch.tensor([3, 4]))
    drawn = texts.drawn_prompts(texts.CLIP, 2, CPU)
    assert shapes(drawn) == shapes(read)
    assert all(not getattr(drawn, part.name).any() for part in fields(drawn))


def test_drawn_prompts_of_the_network_itself_need_no_memory():
    drawn = texts.drawn_prompts(texts.CLIP, 5, torch.device("meta"))
    assert all(getattr(drawn, part.name).is_meta for part in fields(drawn))
    assert shapes(drawn) == {
        "states": (5, 77, 768),
        "inner": (5, 77, 768),
        "pooled": (5, 768),
        "empty_states": (1, 77, 768),
        "empty_inner": (1, 77, 768),
        "empty_pooled": (1, 768),
    }
    with pytest.raises(UnknownNameError, match="did you mean clip-text-vit-l14-336"):
        texts.drawn_prompts("clip-text-vit-l14", 1, CPU)


def test_mistakes(shelf, tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean clip-text-vit-l14-336"):
        texts.load("clip-text-vit-l14", CPU)
    with pytest.raises(MissingWeightsError, match="clip-text-vit-l14-336 has no weights here"):
        texts.load(texts.CLIP, CPU, Shelf(tmp_path / "none"))
    safetensors.torch.save_file({"token_embedding.weight": torch.zeros(4, 4)}, shelf[2])
    with pytest.raises(WeightsError, match="missing"):
        texts.load(texts.CLIP, CPU, shelf[0])
