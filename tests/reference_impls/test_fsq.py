"""Finite scalar quantization: digits, bounds, ties, gradients."""

import math

import pytest
import torch

from reference_impls.layers.fsq import FiniteScalarQuantizer
from tokenmark.contracts import MethodError

LEVELS = [8, 5, 4, 3, 2]


@pytest.fixture(scope="module")
def fsq():
    return FiniteScalarQuantizer(LEVELS)


def test_every_code_comes_back_from_its_own_levels(fsq):
    codes = torch.arange(math.prod(LEVELS))
    rows = fsq.lookup(codes)
    assert len(rows.unique(dim=0)) == len(codes) == fsq.codebook_size
    assert rows.abs().max() == 1.0
    offset = torch.tensor([0.5 if level % 2 == 0 else 0.0 for level in LEVELS])
    half = (torch.tensor(LEVELS) - 1) * 1.001 / 2
    latents = torch.atanh((rows * fsq.divisor + offset) / half) - torch.atanh(offset / half)
    again = fsq(latents)
    assert torch.equal(again.codes, codes)
    torch.testing.assert_close(again.quantized, rows)


def test_the_first_channel_is_the_lowest_digit(fsq):
    assert fsq.lookup(torch.tensor([0, 1, 8])).tolist() == [
        [-1.0, -1.0, -1.0, -1.0, -1.0],
        [-0.75, -1.0, -1.0, -1.0, -1.0],
        [-1.0, -0.5, -1.0, -1.0, -1.0],
    ]


def test_far_latents_stay_in_the_code(fsq):
    codes = fsq(torch.tensor([[-1e4] * 5, [1e4] * 5])).codes
    assert codes.tolist() == [0, fsq.codebook_size - 1]


def test_zero_is_the_middle(fsq):
    assert fsq(torch.zeros(1, 5)).quantized.abs().max() == 0.0


def test_gradients_pass_the_rounding(fsq):
    latents = torch.zeros(2, 5, requires_grad=True)
    quantized = fsq(latents)
    quantized.quantized.sum().backward()
    assert (latents.grad > 0).all()
    assert quantized.loss.item() == 0.0


def test_half_precision_chooses_as_float32(fsq):
    latents = torch.randn(64, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(fsq(latents).codes, fsq(latents.float()).codes)


def test_there_is_no_state(fsq):
    assert not fsq.state_dict()
    assert FiniteScalarQuantizer([8, 8, 8, 5, 5, 5]).codebook_sizes == (64_000,)


@pytest.mark.parametrize("levels", [[], [1, 8], [501]])
def test_levels_that_cannot_be(levels):
    with pytest.raises(MethodError, match="FSQ needs 2 to 500 levels"):
        FiniteScalarQuantizer(levels)
