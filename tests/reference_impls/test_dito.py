"""DiTo: sizes, the norm that is its bottleneck, and the decoder's noise."""

import pytest
import torch

from reference_impls.tokenizers.dito import METHOD, DiTo
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError

PARAMETERS = {"b-f8c4": 196_924_955, "l-f8c4": 372_669_019, "xl-f8c4": 655_086_555}


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    return DiTo(**SMALL["dito"]).eval()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("variant", PARAMETERS)
def test_official_sizes(variant):
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants[variant].config)
    assert module.info.parameters == PARAMETERS[variant]
    assert module.info.max_tokens == 1024
    assert module.info.bits_per_token == 4 * 32.0


def test_latents_are_normalised_per_image_and_need_no_noise(tokenizer):
    images = torch.rand(2, 3, 32, 32)
    tokens = tokenizer.encode(images)
    flat = tokens.latents.flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(flat.var(1, unbiased=False), torch.ones(2), atol=1e-2, rtol=0)
    assert torch.equal(tokenizer.encode(images).latents, tokens.latents)


def test_decoding_is_repeatable_and_needs_a_generator(tokenizer):
    tokens = tokenizer.encode(torch.rand(1, 3, 32, 32))
    assert torch.equal(tokenizer.decode(tokens, seeded()), tokenizer.decode(tokens, seeded()))
    assert not torch.equal(tokenizer.decode(tokens, seeded()), tokenizer.decode(tokens, seeded(1)))
    with pytest.raises(MethodError, match="decode"):
        tokenizer.decode(tokens)


def test_sizes_that_cannot_be():
    with pytest.raises(MethodError, match="multiple of"):
        DiTo(**{**SMALL["dito"], "image_size": 33})
    with pytest.raises(MethodError, match="sample_steps"):
        DiTo(**{**SMALL["dito"], "sample_steps": 0})
