"""The quantizer's definition: nearest row, lowest index at ties, straight-through gradients."""

import pytest
import torch

from reference_impls.layers.quantizers import VectorQuantizer


@pytest.mark.parametrize("l2_norm", [False, True])
def test_nearest_row_by_its_definition(l2_norm):
    torch.manual_seed(0)
    quantizer = VectorQuantizer(37, 5, l2_norm=l2_norm).double()
    latents = torch.randn(4, 6, 5).double() / 37
    points = torch.nn.functional.normalize(latents, dim=-1) if l2_norm else latents
    expected = torch.cdist(points, quantizer.codebook().expand(4, -1, -1)).argmin(-1)
    result = quantizer(latents)
    assert torch.equal(result.codes, expected)
    torch.testing.assert_close(result.quantized, quantizer.lookup(result.codes))
    distance = (points - quantizer.lookup(expected)).square().mean()
    torch.testing.assert_close(result.loss, 1.25 * distance)


def test_ties_go_to_the_lowest_code():
    quantizer = VectorQuantizer(4, 2)
    with torch.no_grad():
        quantizer.embedding.weight.copy_(torch.tensor([[9.0, 9.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]]))
    assert quantizer(torch.tensor([[0.0, 0.0], [1.0, 0.0]])).codes.tolist() == [1, 1]


def test_gradients_go_straight_through_and_losses_pull_one_side_each():
    quantizer = VectorQuantizer(8, 3)
    latents = torch.randn(5, 3, requires_grad=True)
    result = quantizer(latents)
    (gradient,) = torch.autograd.grad(result.quantized.sum(), latents, retain_graph=True)
    assert torch.equal(gradient, torch.ones(5, 3))
    assert torch.autograd.grad(result.codebook_loss, latents, allow_unused=True, retain_graph=True) == (None,)
    rows = quantizer.embedding.weight
    assert torch.autograd.grad(result.commitment_loss, rows, allow_unused=True, retain_graph=True) == (None,)
    assert torch.autograd.grad(result.codebook_loss, rows)[0].any()


def test_half_precision_chooses_the_codes_of_float32():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(512, 12, l2_norm=True)
    latents = torch.randn(200, 12).bfloat16()
    expected = quantizer(latents.float()).codes
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(quantizer(latents).codes, expected)
    assert quantizer(latents).quantized.dtype == torch.float32
