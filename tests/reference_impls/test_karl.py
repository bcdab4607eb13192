"""KARL: sizes, tokens that are left out, and what is stored of an image."""

import pytest
import torch

from reference_impls.tokenizers.karl import LOSSES, METHOD, loss_index
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError, Tokens


@pytest.mark.parametrize(
    ("variant", "values"),
    [
        ("small-vqgan-quantized", 270_911_120),
        ("small-vqgan-continuous", 270_861_968),
        ("small-vae-quantized", 280_970_720),
        ("small-vae-continuous", 280_921_568),
    ],
)
def test_released_sizes(variant, values):
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants[variant].config)
    assert sum(value.numel() for value in module.state_dict().values()) == values
    assert module.info.max_tokens == 256
    assert module.info.stochastic == ("vae" in variant)
    assert module.info.codebook_sizes == ((4096, 2) if variant.endswith("quantized") else ())


@pytest.mark.parametrize(
    ("quality", "asked"),
    [(0.0, 0.005), (0.005, 0.005), (0.05, 0.05), (0.051, 0.06), (0.38, 0.38), (0.5, 0.38), (-1.0, 0.005)],
)
def test_quality_is_rounded_up_to_what_can_be_asked_for(quality, asked):
    assert LOSSES[loss_index(quality)] == asked


def halting(**changes):
    """A tokenizer of which some tokens halt."""
    torch.manual_seed(0)
    module = METHOD.build(**{**SMALL["karl"], **changes}).eval()
    torch.nn.init.normal_(module.halting_mlp[2].weight, std=1.0)
    torch.nn.init.normal_(module.latent_tokens)
    return module


def test_what_is_kept_is_counted_and_stored():
    module, images = halting(), torch.rand(4, 3, 32, 32)
    tokens = module.encode(images)
    code, kept = tokens.codes.unbind(2)
    assert torch.equal(tokens.lengths, kept.sum(1))
    assert 0 < int(tokens.lengths.min()) <= int(tokens.lengths.max()) < 16
    assert not code[kept == 0].any()
    assert tokens.bits.tolist() == [6.0 * length + 16 for length in tokens.lengths.tolist()]


def test_nobody_sees_what_is_left_out():
    module, images = halting(), torch.rand(2, 3, 32, 32)
    tokens = module.encode(images)
    other = tokens.codes.clone()
    other[..., 0] = torch.where(other[..., 1] == 0, 63, other[..., 0])
    changed = Tokens(lengths=tokens.lengths, bits=tokens.bits, codes=other)
    torch.testing.assert_close(module.decode(changed), module.decode(tokens), atol=1e-3, rtol=0)


def test_a_budget_is_the_most_that_is_kept_and_its_tail_may_be_absent():
    module, images = halting(), torch.rand(2, 3, 32, 32)
    short = module.encode(images, tokens=5)
    assert short.codes.shape == (2, 5, 2)
    assert (short.lengths <= 5).all()
    longer = torch.nn.functional.pad(short.codes, (0, 0, 0, 11))
    padded = Tokens(lengths=short.lengths, bits=short.bits, codes=longer)
    torch.testing.assert_close(module.decode(padded), module.decode(short), atol=1e-3, rtol=0)


def test_an_image_of_which_nothing_is_kept_decodes():
    module = halting()
    torch.nn.init.constant_(module.halting_mlp[2].bias, 100.0)
    tokens = module.encode(torch.rand(2, 3, 32, 32))
    assert tokens.lengths.tolist() == [0, 0]
    assert module.decode(tokens).isfinite().all()


def test_continuous_tokens_carry_their_mark():
    vae = {"ch": 32, "ch_mult": [1, 1, 1], "num_res_blocks": 1, "z_channels": 4}
    module, images = halting(base={"vae": vae}, codebook_size=None), torch.rand(2, 3, 32, 32)
    tokens = module.encode(images, generator=torch.Generator().manual_seed(0))
    assert tokens.latents.shape == (2, 16, 13)
    assert torch.equal(tokens.latents[..., -1].sum(1).long(), tokens.lengths)
    assert tokens.bits.tolist() == [12 * 32.0 * length + 16 for length in tokens.lengths.tolist()]
    assert module.decode(tokens).shape == images.shape
    with pytest.raises(MethodError, match=r"torch\.Generator"):
        module.encode(images)


def test_impossible_sizes():
    with pytest.raises(MethodError, match="512"):
        halting(max_tokens=513)
    with pytest.raises(MethodError, match="patches"):
        halting(image_size=30)
