"""What the parity vectors do not show of CODA."""

import pytest
import torch
from torch import nn

from reference_impls.layers.lora import LoraConv2d
from reference_impls.tokenizers.coda import METHOD, release_arguments
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return METHOD.build(**SMALL["coda"]).eval()


@pytest.mark.parametrize(("variant", "tokens", "parameters"), [("mar", 680, 72_740_707), ("flux", 2240, 90_686_003)])
def test_official_sizes(variant, tokens, parameters):
    name = {"mar": "mar-16384", "flux": "flux-65536"}[variant]
    with torch.device("meta"):
        info = METHOD.build(**METHOD.variants[name].config).info
    assert (info.max_tokens, info.parameters, info.image_size) == (tokens, parameters, 256)
    assert info.stochastic


def test_a_fresh_lora_changes_nothing():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    adapted, image = LoraConv2d(conv, rank=2), torch.rand(1, 3, 8, 8)
    assert torch.equal(adapted(image), conv(image))
    nn.init.normal_(adapted.lora_layer["up"].weight)
    assert not torch.allclose(adapted(image), conv(image))


def test_noise_can_be_repeated_and_the_mean_needs_none(small):
    images = torch.rand(2, 3, 32, 32)
    given = [small.encode(images, generator=torch.Generator().manual_seed(seed)).codes for seed in (0, 0, 1)]
    assert torch.equal(given[0], given[1])
    assert not torch.equal(given[0], given[2])
    with pytest.raises(MethodError, match="Generator"):
        small.encode(images)
    mean = METHOD.build(**SMALL["coda"], sample_posterior=False).eval()
    assert torch.equal(mean.encode(images).codes, mean.encode(images).codes)


def test_codes_decode_to_what_was_quantised(small):
    latents = small.normalised(small.posterior(torch.rand(2, 3, 32, 32)).mean)
    given = small.quantizer(latents)
    torch.testing.assert_close(small.quantizer.lookup(given.codes, 8, 8), given.quantized)


@pytest.mark.parametrize(("change", "words"), [({"norm_type": "layer_norm"}, "rms_norm"), ({"image_size": 30}, "30")])
def test_sizes_that_it_has_not(change, words):
    config = {
        "image_size": 32,
        "latent_channels": 4,
        "vae": {"type": "mar_kl16", "ch": 32, "ch_mult": [1, 1, 1], "num_res_blocks": 1},
        "lora_rank": 2,
        "lora_modules": ["conv1"],
        "codebook_size": 8,
        "patch_size_list": [1, 8],
        "norm_type": None,
        "attn_dim": None,
    }
    METHOD.build(**release_arguments(config))
    with pytest.raises(MethodError, match=words):
        METHOD.build(**release_arguments(config | change))
