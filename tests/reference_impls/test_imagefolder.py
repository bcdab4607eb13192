"""ImageFolder and the XQ-GAN zoo: what their vectors do not show."""

import pytest
import torch

from reference_impls.tokenizers.imagefolder import METHOD, release_arguments
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def built(**changes):
    torch.manual_seed(0)
    return METHOD.build(**{**SMALL["imagefolder"], **changes}).eval()


@pytest.mark.parametrize(
    ("variant", "tokens", "sizes", "bits"),
    [
        ("vq-4096", 256, (4096,), 12.0),
        ("vp2-16384", 256, (16384, 16384), 28.0),
        ("msvr10p2-8192", 286, (8192, 8192), 26.0),
        ("msbr10p2-16384", 286, (16384, 16384), 28.0),
        ("robusttok", 256, (4096,), 12.0),
    ],
)
def test_official_sizes(variant, tokens, sizes, bits):
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants[variant].config)
    assert (module.info.max_tokens, module.info.codebook_sizes, module.info.bits_per_token) == (tokens, sizes, bits)


def test_the_network_that_only_training_sees_is_not_counted():
    with_it, without = built(semantic_model=True), built()
    assert with_it.info.parameters == without.info.parameters
    extra = with_it.state_dict().keys() - without.state_dict().keys()
    assert extra
    assert all(key.startswith("semantic_model.") for key in extra)


@pytest.mark.parametrize(
    "changes",
    [
        {"scales": [3]},
        {"scales": [3], "branches": 1},
        {"branches": 1},
        {"binary": True, "codebook_size": 256},
        {"binary": True, "codebook_size": 256, "scales": [3], "branches": 1},
        {"branches": 3, "codebook_dim": 4},
    ],
)
def test_every_kind_of_quantiser_goes_there_and_back(changes):
    module = built(**changes)
    tokens = module.encode(IMAGES)
    branches = changes.get("branches", 2)
    shape = (2, module.max_tokens) if branches == 1 else (2, module.max_tokens, branches)
    assert tokens.codes.shape == shape
    assert tokens.bits.tolist() == [module.max_tokens * module.info.bits_per_token] * 2
    assert module.decode(tokens).shape == IMAGES.shape


def test_every_branch_has_codes_of_its_own():
    module = built()
    codes = module.encode(IMAGES).codes
    decoded = module.decode_codes(codes)
    for branch in range(2):
        other = codes.clone()
        other[:, -1, branch] = (other[:, -1, branch] + 1) % 64
        assert not torch.allclose(decoded, module.decode_codes(other))


def test_bits_follow_the_channels_least_significant_first():
    quantize = built(binary=True, codebook_size=256).quantizers[0]
    rows = torch.tensor([[[0.5, -0.5, 0.0, 2.0, -1.0, -1.0, -1.0, 1.0]]])
    codes = quantize.choose(rows, 0)
    assert codes.item() == 1 + 8 + 128  # zero is no one
    assert torch.equal(quantize.rows(codes, 0) > 0, rows > 0)
    assert torch.allclose(quantize.rows(codes, 0).norm(dim=-1), torch.ones(1, 1))


def test_sizes_that_do_not_fit():
    with pytest.raises(MethodError, match="8 bits are 256 codes, got codebook_size 64"):
        built(binary=True)
    with pytest.raises(MethodError, match="image_size 30 is not a multiple of the patch size 8"):
        built(image_size=30)
    release = {"v_patch_nums": [1, 4], "num_latent_tokens": 25, "codebook_size": 64, "codebook_embed_dim": 8}
    with pytest.raises(MethodError, match="square root of 25, got 4"):
        release_arguments(release)
