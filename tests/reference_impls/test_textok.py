"""TexTok: sizes of the paper, and text that reaches what it must and nothing else."""

import pytest
import torch
from torch import nn

from reference_impls.tokenizers.textok import METHOD
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError

CONFIG = SMALL["textok"]


def on_meta(variant):
    with torch.device("meta"):
        return METHOD.build(**METHOD.variants[variant].config)


def build(**others):
    """A small model whose latents and text weigh as much as a trained one's may."""
    torch.manual_seed(0)
    module = METHOD.build(**{**CONFIG, **others}).eval()
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5)
    return module


@pytest.fixture(scope="module")
def told():
    return build()


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 32, 32, generator=generator), torch.randn(2, 2, *CONFIG["text"], generator=generator)


@pytest.mark.parametrize("tokens", [32, 64, 128, 256])
def test_sizes_of_the_paper(tokens):
    for size, channels in ((256, 2048), (512, 4096)):
        info = on_meta(f"{size}-{tokens}").info
        assert (info.image_size, info.max_tokens, info.text) == (size, tokens, (128, channels))
        assert info.bits_per_token == 8 * 32
        plain = on_meta(f"{size}-{tokens}-plain").info
        assert (plain.max_tokens, plain.bits_per_token, plain.text) == (tokens, 8 * 32, None)
        # All that text adds: a projection and 128 places on each side.
        assert info.parameters - plain.parameters == 2 * 768 * (channels + 1 + 128)


def test_parameters_of_the_paper():
    assert on_meta("256-128").info.parameters == pytest.approx(176e6, rel=0.01)


def test_encode_needs_a_text(told, inputs):
    images, (text, _) = inputs
    with pytest.raises(MethodError, match=r"encode\(\) \(2, 6, 24\)"):
        told.encode(images)
    for bad in (text[:1], text[:, :5], text[:, :, :23], text.long()):
        with pytest.raises(MethodError, match=r"\(2, 6, 24\)"):
            told.encode(images, text=bad)
    with pytest.raises(MethodError, match=r"decode\(\)"):
        told.decode(told.encode(images, text=text))


def test_an_image_is_read_with_its_own_text(told, inputs):
    images, (text, other) = inputs
    mixed = torch.stack([text[0], other[1]])
    plain, changed = (told.encode(images, text=words) for words in (text, mixed))
    torch.testing.assert_close(changed.latents[0], plain.latents[0])
    assert (changed.latents[1] - plain.latents[1]).abs().max() > 0.01
    assert torch.equal(changed.bits, plain.bits)
    first, second = (told.decode(plain, text=words) for words in (text, mixed))
    torch.testing.assert_close(first[0], second[0])
    assert (first[1] - second[1]).abs().max() > 0.01


def test_every_text_token_is_read(told, inputs):
    images, (text, other) = inputs
    tokens = told.encode(images, text=text)
    for place in range(text.shape[1]):
        changed = text.clone()
        changed[:, place] = other[:, place]
        assert not torch.allclose(told.encode(images, text=changed).latents, tokens.latents, atol=1e-4)
        assert not torch.allclose(told.decode(tokens, text=changed), told.decode(tokens, text=text), atol=1e-4)


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_one_side_alone(side, inputs):
    images, (text, other) = inputs
    module = build(told=(side,))
    tokens, changed = (module.encode(images, text=words) for words in (text, other))
    assert torch.equal(tokens.latents, changed.latents) == (side == "decoder")
    decoded, again = (module.decode(tokens, text=words) for words in (text, other))
    assert torch.equal(decoded, again) == (side == "encoder")
    assert (module.info.text is None) == (side == "encoder")


def test_without_text_none_is_needed_or_used(inputs):
    images, (text, _) = inputs
    module = build(told=())
    tokens = module.encode(images)
    assert torch.equal(tokens.latents, module.encode(images, text=text).latents)
    assert torch.equal(module.decode(tokens), module.decode(tokens, text=text))


def test_patches_lie_where_they_were_cut():
    module = build()
    with torch.no_grad():
        module.to_pixels.weight.zero_()
        module.to_pixels.bias.copy_(torch.arange(3 * 8 * 8).float())
    images = module.decode_latents(torch.zeros(1, 4, 8), torch.zeros(1, *CONFIG["text"]))
    cell = torch.arange(3 * 8 * 8).float().reshape(1, 3, 8, 8)
    torch.testing.assert_close(images, (cell.repeat(1, 1, 4, 4) + 1) / 2)


def test_sizes_that_do_not_fit():
    with pytest.raises(MethodError, match="patch size"):
        METHOD.build(**{**CONFIG, "image_size": 36})
    with pytest.raises(MethodError, match="told"):
        METHOD.build(**{**CONFIG, "told": ("middle",)})
