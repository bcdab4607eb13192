"""IBQ: the released sizes, and how a code is chosen."""

import pytest
import torch

from reference_impls.tokenizers import ibq
from reference_impls.tokenizers.ibq import METHOD, IndexQuantizer

RELEASED = {1024: 107_049_859, 8192: 108_884_867, 16384: 110_982_019, 262144: 173_896_579}


@pytest.mark.parametrize("codes", RELEASED)
def test_released_sizes(codes):
    with torch.device("meta"):
        info = METHOD.build(**METHOD.variants[f"imagenet-{codes}"].config).info
    assert (info.max_tokens, info.codebook_sizes, info.parameters) == (256, (codes,), RELEASED[codes])


def test_the_largest_product_wins_and_not_the_nearest_row():
    quantize = IndexQuantizer(3, 2)
    with torch.no_grad():
        quantize.embedding.weight.copy_(torch.tensor([[1.0, 0.0], [3.0, 0.0], [3.0, 0.0]]))
    latents = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]])
    assert quantize.codes(latents).tolist() == [[1, 0, 0]]  # ties go to the lowest index
    assert torch.equal(quantize(latents).codes, quantize.codes(latents))


def test_codes_do_not_depend_on_how_many_logits_are_held(monkeypatch):
    torch.manual_seed(0)
    quantize, latents = IndexQuantizer(50, 4), torch.randn(3, 7, 4)
    whole = quantize.codes(latents)
    for most in (1, 120):
        monkeypatch.setattr(ibq, "MOST_LOGITS", most)
        assert torch.equal(quantize.codes(latents), whole)
    assert quantize.codes(latents[:0]).shape == (0, 7)


def test_gradients_reach_rows_that_were_not_chosen():
    torch.manual_seed(0)
    quantize = IndexQuantizer(9, 4)
    quantize(torch.randn(1, 2, 4)).quantized.square().sum().backward()
    assert quantize.embedding.weight.grad.ne(0).all()
