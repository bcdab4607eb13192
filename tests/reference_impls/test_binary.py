"""Binary quantization by its definition: signs, integer codes, and the entropy loss with all codes written out."""

import pytest
import torch

from reference_impls.layers.binary import BinaryQuantizer, EntropyLoss, bits_of_codes, codes_of_bits
from tokenmark.contracts import MethodError


def test_bits_count_from_the_first_channel_or_from_the_last():
    bits = torch.tensor([[1, 0, 0], [0, 1, 1]])
    assert codes_of_bits(bits).tolist() == [1, 6]
    assert codes_of_bits(bits, most_significant_first=True).tolist() == [4, 3]


@pytest.mark.parametrize("most_significant_first", [False, True])
def test_codes_of_62_bits_are_exact(most_significant_first):
    order = {"most_significant_first": most_significant_first}
    bits = torch.randint(2, (200, 62), generator=torch.Generator().manual_seed(0))
    codes = codes_of_bits(bits.bool(), **order)
    assert torch.equal(bits_of_codes(codes, 62, **order), bits)
    assert codes.min() >= 0
    digits = bits if most_significant_first else bits.flip(1)
    assert codes.tolist() == [int("".join(map(str, row)), 2) for row in digits.tolist()]


def test_zero_counts_as_minus_one():
    result = BinaryQuantizer(3)(torch.tensor([[0.0, -0.0, 1e-30]]))
    assert result.codes.tolist() == [4]
    assert result.quantized.tolist() == [[-1.0, -1.0, 1.0]]


def test_codes_on_the_unit_sphere():
    quantizer = BinaryQuantizer(16, l2_norm=True, scale=0.25).double()
    latents = torch.randn(5, 16, dtype=torch.float64)
    result = quantizer(latents)
    torch.testing.assert_close(result.quantized.norm(dim=1), torch.ones(5, dtype=torch.float64))
    assert torch.equal(quantizer.lookup(result.codes), latents.sign() / 4)
    distance = (latents / latents.norm(dim=1, keepdim=True) - latents.sign() / 4).square().mean()
    torch.testing.assert_close(result.loss, 0.25 * distance)


def test_gradients_go_straight_through():
    latents = torch.randn(4, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(BinaryQuantizer(6)(latents).quantized.sum(), latents)
    assert torch.equal(gradient, torch.ones(4, 6))


def test_half_precision_gives_the_codes_of_float32():
    latents = torch.randn(50, 36).bfloat16()
    quantizer = BinaryQuantizer(36, l2_norm=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(quantizer(latents).codes, quantizer(latents.float()).codes)


@pytest.mark.parametrize("bits", [0, 63])
def test_what_an_integer_cannot_hold(bits):
    with pytest.raises(MethodError, match="1 to 62 bits"):
        BinaryQuantizer(bits)


def written_out(latents, scale, temperature):
    """Both entropies from the probabilities of all codes."""
    codes = scale * (2.0 * bits_of_codes(torch.arange(2 ** latents.shape[1]), latents.shape[1]) - 1.0)
    chances = (-torch.cdist(latents, codes.to(latents)).square() / temperature).softmax(1)
    mean = chances.mean(0)
    return -torch.xlogy(chances, chances).sum(1).mean(), -torch.xlogy(mean, mean).sum()


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_entropies_by_their_definition(bits):
    latents = torch.randn(30, bits, dtype=torch.float64, requires_grad=True)
    per_token, overall = written_out(latents, 0.5, 0.7)
    expected = 0.1 * (per_token - 2.0 * overall)
    found = EntropyLoss(weight=0.1, temperature=0.7, gamma=2.0)(latents, 0.5)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(value, latents)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_entropies_of_groups_add_up():
    latents = torch.randn(30, 6, dtype=torch.float64)
    parts = [written_out(part, 1.0, 1.0) for part in latents.split(3, dim=1)]
    expected = sum(own - overall for own, overall in parts)
    torch.testing.assert_close(EntropyLoss(weight=1.0, temperature=1.0, group=3)(latents, 1.0), expected)


def test_entropy_is_zero_for_one_sure_code_and_its_gradient_finite():
    latents = torch.full((4, 5), 3.0, requires_grad=True)
    quantizer = BinaryQuantizer(5, commitment_cost=0.0, entropy=EntropyLoss(weight=1.0))
    loss = quantizer(latents).loss
    assert abs(loss.item()) < 1e-5
    assert torch.autograd.grad(loss, latents)[0].isfinite().all()
    with torch.no_grad():
        assert quantizer(latents).entropy_loss == 0
