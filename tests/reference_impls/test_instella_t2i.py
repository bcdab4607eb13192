"""Instella-T2I's tokenizer: its size, its bits, and images of other sizes."""

import pytest
import torch

from reference_impls.layers.instella_vit import RotaryAxes
from reference_impls.tokenizers.instella_t2i import METHOD, release_arguments
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return METHOD.build(**SMALL["instella-t2i"]).eval()


def test_released_size():
    with torch.device("meta"):
        info = METHOD.build(**METHOD.variants["bae-128x64"].config).info
    assert (info.max_tokens, info.bits_per_token, info.parameters) == (128, 64, 427_754_560)
    assert info.codebook_sizes == (2,) * 64


def test_a_token_is_the_sum_of_its_bits(module):
    tokens = module.encode(torch.rand(2, 3, 32, 32))
    assert tokens.codes.shape == (2, 6, 16)
    assert tokens.bits.tolist() == [6 * 16.0] * 2
    rows = module.quantizer.lookup(tokens.codes)
    torch.testing.assert_close(rows[1, 3], module.quantizer.embed[tokens.codes[1, 3].bool()].sum(0))
    assert not module.quantizer.lookup(torch.zeros_like(tokens.codes)).any()


def test_a_logit_of_zero_is_a_zero_bit(module, monkeypatch):
    monkeypatch.setattr(type(module), "bit_logits", lambda _self, signed: signed.new_zeros(len(signed), 6, 16))
    assert not module.encode(torch.rand(1, 3, 32, 32)).codes.any()


def test_the_same_bits_decode_to_any_size(module):
    with torch.no_grad():
        latents = module.quantizer.lookup(module.encode(torch.rand(1, 3, 32, 32)).codes)
        assert module.decode_latents(latents).shape == (1, 3, 32, 32)
        assert module.decode_latents(latents, (48, 64)).shape == (1, 3, 48, 64)


def test_positions_are_stretched_to_the_same_span():
    latents = torch.zeros(1)
    plain = RotaryAxes(dims=[4, 4, 4], span=None)
    stretched = RotaryAxes(dims=[4, 4, 4], span=8)
    for grid, halvings in (((8, 8), 0), ((4, 4), 1)):
        torch.testing.assert_close(plain.table(3, grid, 0, latents), stretched.table(3, grid, halvings, latents))
    corners = [stretched.table(3, grid, 0, latents)[1][-1] for grid in ((2, 5), (8, 8))]
    torch.testing.assert_close(*corners)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"image_size": 40}, "multiple of 16"), ({"bits": 1}, "two bits"), ({"rope_dims": [4, 6, 8]}, "in sum 16")],
)
def test_sizes_that_do_not_fit(change, words):
    with pytest.raises(MethodError, match=words):
        METHOD.build(**{**SMALL["instella-t2i"], **change})


def test_the_release_says_no_image_size():
    config = {
        "encoder_layers": 1,
        "encoder_head_dim": 16,
        "encoder_num_heads": 2,
        "decoder_layers": 1,
        "decoder_head_dim": 16,
        "decoder_num_heads": 2,
        "patch_size": 16,
        "num_latent_tkns": 128,
        "axes_dims_rope": [4, 6, 6],
        "downsample_idx": [0],
        "upsample_idx": [0],
        "codebook_size": 64,
    }
    told = release_arguments(config)
    assert (told["image_size"], told["scale_pixels"], told["bits"]) == (1024, 1024, 64)
