"""GaussianToken: what a token holds and costs, and what Gaussians draw."""

import math

import pytest
import torch

from reference_impls.layers.splatting import splat
from reference_impls.tokenizers.gaussiantoken import METHOD, release_arguments
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError, Tokens


@pytest.mark.parametrize(
    ("variant", "tokens", "bits", "values"),
    [("imagenet-256", 256, 170, 113_129_550), ("cifar-64", 64, 170, 24_839_526)],
)
def test_released_sizes(variant, tokens, bits, values):
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants[variant].config)
    assert module.info.max_tokens == tokens
    assert module.info.codebook_sizes == ()
    assert module.info.bits_per_token == bits
    assert sum(value.numel() for value in module.state_dict().values()) == values


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return METHOD.build(**SMALL["gaussiantoken"]).eval()


def test_a_token_is_five_numbers_and_a_code(small):
    tokens = small.encode(torch.rand(2, 3, 32, 32))
    assert tokens.latents.shape == (2, 12, 6)
    assert tokens.bits.tolist() == [12 * (5 * 32 + 6.0)] * 2
    means, rotations, scales, codes = tokens.latents.split([2, 1, 2, 1], dim=2)
    assert means.abs().max() <= 1
    assert 0 <= rotations.min() <= rotations.max() <= math.pi
    assert 0.1 <= scales.min() <= scales.max() <= 4.0
    assert torch.equal(codes, codes.round())
    assert small.decode(tokens).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("code", [64.0, -1.0, 0.5, float("nan")])
def test_a_code_that_is_none(small, code):
    tokens = small.encode(torch.rand(1, 3, 32, 32))
    latents = tokens.latents.clone()
    latents[0, 3, 5] = code
    with pytest.raises(MethodError, match="whole numbers, 0 to 63"):
        small.decode(Tokens(lengths=tokens.lengths, bits=tokens.bits, latents=latents))


def test_order_does_not_matter(small):
    tokens = small.encode(torch.rand(1, 3, 32, 32))
    flipped = Tokens(lengths=tokens.lengths, bits=tokens.bits, latents=tokens.latents.flip(1))
    torch.testing.assert_close(small.decode(flipped), small.decode(tokens))


def test_the_largest_scale_is_the_checkpoints(small):
    ranges = small.gs_embed.layers[-1].range_scheduler
    ranges.current_range_max.fill_(0.2)
    try:
        assert small.encode(torch.rand(1, 3, 32, 32)).latents[..., 3:5].max() <= 0.2
    finally:
        ranges.current_range_max.fill_(4.0)


def test_opacities_and_impossible_sizes():
    with pytest.raises(MethodError, match="include_opa"):
        release_arguments({"include_opa": True})
    for name, value, words in [("image_size", 31, "multiple of 2"), ("embed_dim", 48, "of 32"), ("rounds", 0, "1 or")]:
        with pytest.raises(MethodError, match=words):
            METHOD.build(**{**SMALL["gaussiantoken"], name: value})


def one(x, y, scales, angle=0.0, feature=1.0, side=64):
    """The map of one Gaussian whose centre is the cell (x, y)."""
    means = torch.tensor([[[x, y]]], dtype=torch.float64) * 2 / side - 1
    parts = (torch.tensor([[value]], dtype=torch.float64) for value in (scales, [angle], [feature]))
    return splat(means, *parts, (side, side))[0, 0]


def test_a_gaussian_is_its_density_around_its_centre():
    drawn = one(20, 30, [2.0, 1.0], feature=3.0)
    assert drawn[30, 20] == pytest.approx(3.0)
    assert drawn[30, 22] == pytest.approx(3.0 * math.exp(-0.5))
    assert drawn[31, 20] == pytest.approx(3.0 * math.exp(-0.5))
    assert drawn[30, 26] > 0
    assert drawn[30, 27] == 0  # 3.5 deviations: fainter than 1/255
    torch.testing.assert_close(one(20, 30, [1.0, 2.0], math.pi / 2, 3.0), drawn)


def test_a_tile_that_three_deviations_do_not_touch_is_left_out():
    """Cells between 3 and 3.33 deviations are drawn, but not across the border of a tile."""
    assert one(22.7, 30.0, [2.0, 0.1])[30, 29] > 0
    assert one(9.7, 30.0, [2.0, 0.1])[30, 15] > 0
    assert one(9.7, 30.0, [2.0, 0.1])[30, 16] == 0
    assert one(10.1, 30.0, [2.0, 0.1])[30, 16] > 0


def test_turns_bound_memory_and_change_nothing():
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    parts = (2 * draw(2, 9, 2) - 1, 0.1 + 3 * draw(2, 9, 2), math.pi * draw(2, 9, 1), draw(2, 9, 3))
    whole = splat(*parts, (20, 24))
    assert whole.shape == (2, 3, 20, 24)
    torch.testing.assert_close(splat(*parts, (20, 24), budget=1), whole)
    torch.testing.assert_close(splat(*(part[1:] for part in parts), (20, 24)), whole[1:])
