"""Selftok: sizes, which tokens are shown when, and the VAE that lies in another file."""

import pytest
import torch

from reference_impls.layers.kl_autoencoder import KlAutoencoder
from reference_impls.tokenizers.selftok import METHOD, Selftok, thousandths
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError

SHOWN = """
511 510 508 507 505 504 502 500 499 497 496 491 486 481 476 472 467 462 457 452 448 440 433 426 419 412 404 397 390 383
375 357 338 320 302 283 265 247 228 210 191 171 153 134 115 95 76 57 38 19
"""
"""The last token that the release shows at each of its 50 steps, computed on a CPU."""


def official(name):
    with torch.device("meta"):
        return METHOD.build(**METHOD.variants[name].config)


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    module = Selftok(**SMALL["selftok"]).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)  # adaLN-Zero's zeros hide the blocks
    return module


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", METHOD.variants)
def test_official_sizes(name):
    module = official(name)
    assert module.info.max_tokens == 512
    assert module.info.codebook_sizes == (32768,)
    assert module.info.bits_per_token == 15.0
    assert module.info.draws_to_decode == (name == "tokenizer-512")
    assert not module.info.stochastic


def test_tokens_are_shown_as_in_the_release():
    module = official("tokenizer-512")
    times = module.times()
    assert len(times) == 51
    assert [module.last_token(thousandths(time)) for time in times[:-1]] == [int(number) for number in SHOWN.split()]


def test_stages_begin_where_the_ones_before_end(tokenizer):
    assert [tokenizer.last_token(time) for time in (0, 66, 67, 399, 400, 549, 550, 999, 1000)] == [
        0, 0, 1, 5, 6, 6, 7, 9, 9,
    ]  # fmt: skip


def test_tokens_that_are_not_shown_have_no_effect(tokenizer, images):
    quantized = tokenizer.encoder.lookup(tokenizer.encode(images).codes)
    noise = torch.randn(2, 4, 16, 16)
    changed = quantized.clone()
    changed[:, 6:] += 1.0
    early, late = (tokenizer.velocity(noise, 0.39, tokens) for tokens in (quantized, changed))
    torch.testing.assert_close(early, late)
    assert not torch.allclose(tokenizer.velocity(noise, 1.0, quantized), tokenizer.velocity(noise, 1.0, changed))


def test_a_renderer_draws_no_noise(images):
    torch.manual_seed(0)
    module = Selftok(**{**SMALL["selftok"], "renderer": True}).eval()
    tokens = module.encode(images)
    assert torch.equal(module.decode(tokens), module.decode(tokens))
    assert module.decode(tokens).shape == images.shape


def test_a_separate_vae_is_no_part_of_the_state_and_must_be_loaded(images):
    module = Selftok(**{**SMALL["selftok"], "separate_vae": True}).eval()
    state = module.state_dict()
    assert not any(key.startswith("vae.") for key in state)
    module.load_state_dict(state)
    with pytest.raises(MethodError, match="load_part"):
        module.encode(images)
    module.load_part("part-sd3-medium-vae", KlAutoencoder(**SMALL["selftok"]["vae"]).state_dict())
    assert module.encode(images).codes.shape == (2, 10)
    assert Selftok(**SMALL["selftok"]).info.parameters == module.info.parameters


def test_missing_weights_of_its_own_are_still_missed():
    module = Selftok(**{**SMALL["selftok"], "separate_vae": True})
    state = module.state_dict()
    del state["encoder.query_tokens"]
    with pytest.raises(RuntimeError, match=r"encoder\.query_tokens"):
        module.load_state_dict(state)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokens": 11}, "add up to 11"),
        ({"stages": [1000]}, "add up to 10"),
        ({"image_size": 34}, "multiple of 4 up to 40"),
        ({"image_size": 44}, "multiple of 4 up to 40"),
        ({"sample_steps": 0}, "sample_steps"),
    ],
)
def test_sizes_that_cannot_be(change, words):
    with pytest.raises(MethodError, match=words):
        Selftok(**{**SMALL["selftok"], **change})
