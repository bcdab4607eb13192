"""Hita: two codebooks in one sequence, and a foundation model that its checkpoints leave out."""

import pytest
import torch

from reference_impls.layers.dinov2 import resize_smoothed
from reference_impls.tokenizers.hita import METHOD
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError, Tokens


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return METHOD.build(**SMALL["hita"]).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("variant", "own"), [("vanilla", 104_240_839), ("ultra", 104_767_687)])
def test_released_sizes(variant, own):
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants[variant].config)
    assert module.info.max_tokens == 128 + 21 * 21
    assert module.info.codebook_sizes == (32768,)
    assert module.info.bits_per_token == 14.0
    foundation = sum(parameter.numel() for parameter in module.encode_transformer.backbone.parameters())
    assert module.info.parameters - foundation == own
    assert not any("backbone" in key for key in module.state_dict())


def test_holistic_codes_come_first_and_bits_are_those_of_the_own_codebook(small, images):
    tokens = small.encode(images)
    assert tokens.codes.shape == (2, 6 + 64)
    assert tokens.codes[:, :6].max() < 64 <= tokens.codes[:, 6:].min()
    assert tokens.bits.tolist() == [70 * 6.0] * 2
    swapped = Tokens(lengths=tokens.lengths, bits=tokens.bits, codes=tokens.codes.flip(1))
    with pytest.raises(MethodError, match="the first 6 codes are holistic, 0 to 63"):
        small.decode(swapped)


def test_a_checkpoint_without_the_foundation_decodes_but_does_not_encode(small, images):
    arguments = {**SMALL["hita"], "foundation": {**SMALL["hita"]["foundation"], "separate": True}}
    module = METHOD.build(**arguments).eval()
    state = {key: value for key, value in small.state_dict().items() if "backbone" not in key}
    module.load_state_dict(state)
    tokens = small.encode(images)
    assert torch.equal(module.decode(tokens), small.decode(tokens))
    with pytest.raises(MethodError, match="leaves its frozen DINOv2 out"):
        module.encode(images)
    module.load_part("part-dinov2-vitl14-reg4", small.encode_transformer.backbone.pretrained_encoder.state_dict())
    assert torch.equal(module.encode(images).codes, tokens.codes)
    del state["quant_conv.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key.*quant_conv\.bias"):
        module.load_state_dict(state)


def test_sizes_that_cannot_be():
    with pytest.raises(MethodError, match="multiple of 4"):
        METHOD.build(**{**SMALL["hita"], "image_size": 30})
    with pytest.raises(MethodError, match="shift_k"):
        METHOD.build(**{**SMALL["hita"], "shift_k": 7})
    with pytest.raises(MethodError, match="patch size 14"):
        METHOD.build(**{**SMALL["hita"], "foundation": {**SMALL["hita"]["foundation"], "input": 30}})


def test_images_are_smoothed_only_where_they_shrink():
    flat = torch.full((1, 3, 20, 20), 0.25)
    torch.testing.assert_close(resize_smoothed(flat, 8), flat[..., :8, :8])
    dot = torch.zeros(1, 1, 9, 9)
    dot[..., 4, 4] = 1.0
    assert resize_smoothed(dot, 9) is dot
    assert resize_smoothed(dot, 17)[..., 8, 8] == pytest.approx(1.0)
    assert resize_smoothed(dot, 5)[..., 2, 2] < 0.9
