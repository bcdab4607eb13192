"""VQGAN: the released sizes, and what drawing codes means."""

import pytest
import torch

from reference_impls.layers.gaussian import draw_exponential
from reference_impls.tokenizers.vqgan import METHOD, GumbelQuantizer
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError

RELEASED = {
    "imagenet-f16-1024": (256, 1024, 72_141_699),
    "imagenet-f16-16384": (256, 16384, 76_073_859),
    "gumbel-f8-8192": (1024, 8192, 68_995_971),
}


@pytest.fixture(scope="module")
def gumbel():
    torch.manual_seed(0)
    return METHOD.build(**{**SMALL["vqgan"], "codebook_dim": 16, "gumbel": True}).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("variant", RELEASED)
def test_released_sizes(variant):
    with torch.device("meta"):
        info = METHOD.build(**METHOD.variants[variant].config).info
    assert (info.max_tokens, *info.codebook_sizes, info.parameters) == RELEASED[variant]
    assert info.stochastic == variant.startswith("gumbel")


def test_gumbel_codes_are_drawn_and_do_not_depend_on_the_batch(gumbel, images):
    with pytest.raises(MethodError, match=r"torch\.Generator"):
        gumbel.encode(images)
    whole = gumbel.encode(images, generator=torch.Generator().manual_seed(7)).codes
    generator = torch.Generator().manual_seed(7)
    parts = [gumbel.encode(part, generator=generator).codes for part in images.split([1, 2])]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(gumbel.encode(images, generator=torch.Generator().manual_seed(8)).codes, whole)


def test_gumbel_noise_draws_from_the_softmax():
    shares = torch.tensor([0.5, 0.3, 0.2])
    logits = shares.log().expand(20_000, 3)
    noise = draw_exponential(logits[None], torch.Generator().manual_seed(0))[0]
    drawn = (logits - noise.log()).argmax(-1).bincount(minlength=3) / len(logits)
    torch.testing.assert_close(drawn, shares, atol=0.02, rtol=0.0)


def test_gumbel_gradients_reach_logits_and_codebook():
    quantize = GumbelQuantizer(8, 4)
    latents = torch.rand(2, 5, 4, requires_grad=True)
    quantized = quantize(latents, torch.rand(2, 5, 8))
    torch.testing.assert_close(quantized.quantized, quantize.lookup(quantized.codes))
    (quantized.quantized.square().sum() + quantized.loss).backward()
    assert all(parameter.grad.any() for parameter in (latents, *quantize.parameters()))


def test_gumbel_needs_codes_as_wide_as_the_latents():
    with pytest.raises(MethodError, match="codebook_dim 16"):
        METHOD.build(**SMALL["vqgan"], gumbel=True)


def test_release_arguments_read_the_whole_file_too():
    network = {"z_channels": 8, "resolution": 64, "ch": 32, "ch_mult": [1, 2, 2], "num_res_blocks": 1}
    params = {"ddconfig": {**network, "attn_resolutions": [16, 32]}, "n_embed": 7, "embed_dim": 8}
    arguments = METHOD.from_release({"model": {"target": "taming.models.vqgan.GumbelVQ", "params": params}})
    assert arguments == {**METHOD.from_release(params), "gumbel": True}
    assert arguments["attn_levels"] == (1, 2)
    assert METHOD.build(**arguments).info.codebook_sizes == (7,)
