"""BSQ-ViT: sizes of its releases, the order of its bits, and configurations that it is not written for."""

import pytest
import torch

from reference_impls.tokenizers.bsq_vit import METHOD, release_arguments
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError, Tokens

RELEASED = {
    "imagenet-128": (256, 18, 173_636_562),
    "imagenet-256-b18g18": (1024, 18, 174_816_210),
    "imagenet-256-b18g2": (1024, 18, 174_816_210),
    "imagenet-256-b36g36": (1024, 36, 174_843_876),
}


@pytest.mark.parametrize("variant", RELEASED)
def test_released_sizes(variant):
    tokens, bits, parameters = RELEASED[variant]
    with torch.device("meta"):
        info = METHOD.build(**METHOD.variants[variant].config).info
    assert (info.max_tokens, info.bits_per_token, info.parameters) == (tokens, bits, parameters)


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return METHOD.build(**SMALL["bsq-vit"]).eval()


def test_codes_of_36_bits_survive_the_way_there_and_back(module):
    images = torch.rand(2, 3, 32, 32)
    tokens = module.encode(images)
    latents = module.quantize_signed(images * 2 - 1).quantized
    torch.testing.assert_close(module.quantize.lookup(tokens.codes), latents)
    assert tokens.codes.max() >= 2**30
    highest = tokens.codes >= 2**35
    assert torch.equal(highest, latents[..., 0] > 0)
    assert tokens.bits.tolist() == [16 * 36.0] * 2


def test_tables_of_the_checkpoint(module):
    assert module.quantize.basis.tolist() == [2**bit for bit in range(35, -1, -1)]
    assert module.quantize.group_basis.tolist() == [8, 4, 2, 1]


def test_a_code_beyond_the_last(module):
    tokens = module.encode(torch.rand(1, 3, 32, 32))
    with pytest.raises(MethodError, match=f"0 to {2**36 - 1}"):
        module.decode(Tokens(lengths=tokens.lengths, bits=tokens.bits, codes=tokens.codes.fill_(2**36)))


def test_sizes_that_do_not_fit():
    with pytest.raises(MethodError, match="multiple of group"):
        METHOD.build(**{**SMALL["bsq-vit"], "group": 5})
    with pytest.raises(MethodError, match="patch sizes"):
        METHOD.build(**{**SMALL["bsq-vit"], "image_size": 30})


@pytest.mark.parametrize("more", [{"num_frames": 16}, {"ls_init_value": 1e-5}])
def test_configurations_of_other_models(more):
    vit = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 1, "heads": 2, "mlp_ratio": 4}
    with pytest.raises(MethodError, match=next(iter(more))):
        release_arguments({"embed_dim": 18, "vitconfig": {**vit, **more}})
