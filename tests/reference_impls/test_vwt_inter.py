"""Visual Word Tokenizer across images: words, labels and groups by plain loops, and vocabularies in files."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from reference_impls.layers.pixel_patches import fit_vocabulary
from reference_impls.reducers.vwt_inter import METHOD, VwtInterSettings, grouped, word_labels
from tests.reference_impls import vits
from tokenmark.contracts import MethodError, UnsupportedBackboneError
from tokenmark.measures.cost import counted_macs


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 40), st.floats(0, 1), st.integers(0, 10**6))
def test_labels_and_groups_equal_plain_loops(patches, words, threshold, seed):
    rng = np.random.default_rng(seed)
    pixels, vocabulary = rng.standard_normal((1, patches, 2)), rng.standard_normal((words, 2))
    labels = []
    for place, patch in enumerate(pixels[0]):
        cosine = vocabulary @ patch / np.linalg.norm(vocabulary, axis=1) / np.linalg.norm(patch)
        labels.append(int(cosine.argmax()) if 1 - cosine.max() <= threshold else words + place)
    got = word_labels(torch.from_numpy(pixels), torch.from_numpy(vocabulary), threshold)
    assert got[0].tolist() == labels
    assert grouped(got)[0].tolist() == [sorted(set(labels)).index(label) for label in labels]


def repeated(model, patches=(0, 1, 0, 2)):
    """Images of few different patches, and those patches as a vocabulary."""
    generator = torch.Generator().manual_seed(2)
    side = model.patch_embed.patch_size[0]
    few = torch.randn(3, 3, side, side, generator=generator, dtype=torch.float64)
    rows = [torch.cat([few[patch] for patch in np.roll(patches, row)], dim=2) for row in range(4)]
    images = torch.cat(rows, dim=1)[None].repeat(2, 1, 1, 1)
    images[1, :, :side, :side] = torch.randn(3, side, side, generator=generator)
    return images, few.flatten(1)


@pytest.fixture
def model():
    return vits.served("vit")


@pytest.fixture
def vocabulary(model, tmp_path):
    np.save(tmp_path / "words.npy", repeated(model)[1].numpy().astype(np.float32))
    return str(tmp_path / "words.npy")


def test_patches_of_a_word_become_the_mean_of_their_embeddings(model, vocabulary):
    images, _ = repeated(model)
    reduced = METHOD.build(model, VwtInterSettings(vocabulary))
    with torch.no_grad():
        embedded = model.norm_pre(model._pos_embed(model.patch_embed(images)))[:, 1:]
        state = reduced.reduction.before_block(0, reduced._embed(images))
    order = [(place - row) % 4 for row in range(4) for place in range(4)]
    words = np.array([[0, 1, 0, 2][place] for place in order])
    assert reduced.counts(images)[:, 0, 0].tolist() == [1 + 3, 1 + 4]
    for word in range(3):
        expected = embedded[0, words == word].mean(dim=0)
        torch.testing.assert_close(state.x[0, 1 + word], expected)
    own = embedded[1, 0]  # a patch that is no word stands alone, behind the words
    torch.testing.assert_close(state.x[1, 4], own)
    assert state.size[1, :6].tolist() == [1, 7, 4, 4, 1, 0]


@pytest.mark.parametrize("backbone", ["vit", "average", "maximum", "dinov2-registers", "dinov3", "beit"])
@pytest.mark.parametrize("attention", ["fused", "eager"])
def test_rows_that_fill_up_change_nothing(backbone, attention, tmp_path):
    model = vits.served(backbone)
    images, words = repeated(model)
    np.save(tmp_path / "words.npy", words.numpy())
    path = str(tmp_path / "words.npy")
    whole, cut = (METHOD.build(model, VwtInterSettings(path, trim=trim), attention=attention) for trim in (False, True))
    prefix = whole.backbone.prefix
    with torch.no_grad():
        assert [each.trace(images).tokens[-1].shape[1] - prefix for each in (whole, cut)] == [16, 4]
        torch.testing.assert_close(cut(images), whole(images), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(cut(images[:1]), whole(images)[:1], rtol=1e-9, atol=1e-9)
        assert cut.trace(images[:1]).tokens[-1].shape[1] == prefix + 3
    assert torch.equal(cut.counts(images), whole.counts(images))


def test_an_image_alone_costs_its_own_tokens(model, vocabulary):
    reduced = METHOD.build(model, VwtInterSettings(vocabulary, trim=True), attention="eager")
    image = repeated(model)[0][:1]
    seen = vits.seen_schedule(reduced, image)
    assert {(block.attention, block.mlp) for block in seen} == {(4, 4)}
    assert counted_macs(reduced, image) == pytest.approx(reduced.cost.macs(seen) + reduced.extra_macs, rel=0.01)
    assert reduced.extra_macs == 16 * 3 * 768
    assert reduced(image[:0]).shape == (0, 5)


def test_a_fitted_vocabulary_finds_the_patches_that_there_are(model, tmp_path):
    images, words = repeated(model)
    found = fit_vocabulary([images[:1]] * 4, (4, 4), 3, batch_size=16)
    assert found.dtype == np.float32
    distance = np.linalg.norm(found[:, None] - words.numpy()[None], axis=2)
    assert sorted(distance.argmin(axis=1)) == [0, 1, 2]
    assert distance.min(axis=1).max() < 1e-3
    assert np.array_equal(found, fit_vocabulary([images[:1]] * 4, (4, 4), 3, batch_size=16))
    few = fit_vocabulary([images[:1]], (4, 4), 3)  # fewer patches than a batch: they are all there is
    assert few.shape == (3, 768)
    with pytest.raises(MethodError, match="16 patches are too few for 17 words"):
        fit_vocabulary([images[:1]], (4, 4), 17)


def test_reads_safetensors_as_npy(model, vocabulary, tmp_path):
    words = np.load(vocabulary)
    save_file({"any": words}, tmp_path / "words.safetensors")
    both = [METHOD.build(model, VwtInterSettings(path)) for path in (vocabulary, str(tmp_path / "words.safetensors"))]
    assert torch.equal(both[0].reduction.words, both[1].reduction.words)
    assert "reduction.words" not in both[0].state_dict()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.npy", None, "cannot be read"),
        ("text.npy", b"words", "cannot be read"),
        ("words.txt", b"words", "ends otherwise"),
        ("bad.safetensors", b"words", "cannot be read"),
        ("two.safetensors", {"a": np.zeros((2, 768)), "b": np.zeros(1)}, "2 tensors, not one"),
        ("narrow.npy", np.zeros((3, 588)), r"need \(words, 768\)"),
        ("empty.npy", np.zeros((0, 768)), r"need \(words, 768\)"),
        ("nan.npy", np.full((3, 768), np.nan), "finite"),
        ("objects.npy", np.array([{}], dtype=object), "cannot be read"),
    ],
)
def test_refuses_what_is_no_vocabulary(model, tmp_path, name, content, reason):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        save_file(content, path)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(MethodError, match=reason) as caught:
        METHOD.build(model, VwtInterSettings(str(path)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({}, "needs visual words"),
        ({"vocabulary": "words.npy", "drawn_words": 3}, "needs visual words"),
        ({"drawn_words": 3, "threshold": 2.5}, "0 to 2"),
        ({"drawn_words": 3, "threshold": float("nan")}, "0 to 2"),
    ],
)
def test_refuses_settings_that_say_nothing(model, wrong, reason):
    with pytest.raises(MethodError, match=reason) as caught:
        METHOD.build(model, VwtInterSettings(**wrong))
    assert "\n" not in str(caught.value)


def test_refuses_attention_pooling():
    with pytest.raises(UnsupportedBackboneError, match="attention pooling"):
        METHOD.build(vits.served("siglip"), VwtInterSettings(drawn_words=3))
