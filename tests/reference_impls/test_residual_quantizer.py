"""Residual quantisation in depth: nearest rows, level after level, and exact sums give their codes again."""

import pytest
import torch

from reference_impls.layers.depth_masks import hidden
from reference_impls.layers.residual_quantizer import ResidualQuantizer
from tests.reference_impls.latent_generators import seeded


def digits(levels=3, base=4, dim=2):
    """Codebooks that are the digits of a number to some base: a sum of them has one way to be written only."""
    module = ResidualQuantizer(levels, base**dim, dim).double()
    axes = torch.cartesian_prod(*[torch.arange(base, dtype=torch.float64)] * dim) - (base - 1) / 2
    with torch.no_grad():
        module.codebooks.copy_(torch.stack([axes * float(base) ** -level for level in range(levels)]))
    return module


def test_codes_are_the_nearest_rows_of_what_is_left():
    module = ResidualQuantizer(3, 8, 2).double()
    latents = torch.randn(4, 5, 2, dtype=torch.float64, generator=seeded(1)[0])
    codes = module(latents).codes
    rest, books = latents.clone(), module.codebooks.detach()
    for level in range(3):
        distances = (rest[..., None, :] - books[level]).norm(dim=-1)
        assert torch.equal(codes[..., level], distances.argmin(-1))
        rest = rest - books[level][codes[..., level]]
    torch.testing.assert_close(module.lookup(codes), latents - rest)
    torch.testing.assert_close(module.rows(codes).sum(-2), module.lookup(codes))


def test_exact_sums_give_the_masked_codes_again():
    module, generator = digits(), seeded(3)[0]
    codes = torch.randint(16, (6, 10, 3), generator=generator)
    counts = torch.randint(4, (6, 10), generator=generator)
    masked = hidden(counts, 3)
    z = (module.rows(codes) * masked.unsqueeze(-1)).sum(2)
    forgotten = torch.where(masked, 0, codes)
    assert torch.equal(module.fill(z, forgotten, 3 - counts), codes)
    assert torch.equal(module(module.lookup(codes)).codes, codes)
    # And what is known stays, whatever is drawn for the rest.
    drawn = module.fill(torch.randn(6, 10, 2).double(), codes, 3 - counts)
    assert torch.equal(drawn[~masked], codes[~masked])


def test_the_quantizer_trains_all_its_codebooks():
    torch.manual_seed(0)
    module = ResidualQuantizer(3, 8, 2)
    latents = torch.randn(200, 2, requires_grad=True)
    quantized = module(latents)
    sums = module.rows(quantized.codes).cumsum(-2)
    error = (sums - latents.unsqueeze(-2)).square().mean()
    assert float(quantized.loss.detach()) == pytest.approx(1.25 * float(error.detach()), rel=1e-5)
    torch.testing.assert_close(quantized.quantized, module.lookup(quantized.codes))
    quantized.loss.backward()
    assert bool(module.codebooks.grad.abs().sum((1, 2)).min() > 0)
    assert bool(latents.grad.any())
