"""TokenBridge: its levels and its tokens."""

import pytest
import torch

from reference_impls.layers.gaussian_levels import GaussianLevels
from reference_impls.tokenizers.tokenbridge import METHOD
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError


def test_released_size():
    with torch.device("meta"):
        info = METHOD.build(**METHOD.variants["kl16-6bit"].config).info
    assert (info.max_tokens, info.codebook_sizes, info.bits_per_token) == (256, (64,) * 16, 96.0)
    assert info.parameters == 66_456_019


def test_levels_round_trip_and_saturate():
    levels = GaussianLevels(64)
    codes = torch.arange(64)
    assert torch.equal(levels.codes(levels.values(codes)), codes)
    assert levels.codes(torch.tensor([-5.0, -9.0, 5.0, 1e9])).tolist() == [0, 0, 63, 63]
    torch.testing.assert_close(levels.values(codes), -levels.values(codes).flip(0))


def test_the_nearest_level_wins_and_not_the_interval():
    levels = GaussianLevels(4)
    edge = levels.boundaries[1] * levels.reach / 3
    nearest = (levels.values(torch.arange(2)) - (edge - 0.01)).abs().argmin()
    assert levels.codes(edge - 0.01) == nearest == 1  # just below the edge, and so in interval 0


def test_ties_go_to_the_lowest_index_and_empty_intervals_are_finite():
    assert GaussianLevels(2).codes(torch.zeros(1, dtype=torch.float64)).item() == 0
    levels = GaussianLevels(2048).reconstruction_values
    assert levels.isfinite().all()
    assert levels[0] == 0


def test_noise_repeats_and_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    module = METHOD.build(**SMALL["tokenbridge"]).eval()
    images = torch.rand(3, 3, 32, 32)
    whole = module.encode(images, generator=torch.Generator().manual_seed(7))
    assert whole.codes.shape == (3, 64, 4)
    assert whole.bits.tolist() == [64 * 4 * 3.0] * 3
    generator = torch.Generator().manual_seed(7)
    parts = [module.encode(part, generator=generator).codes for part in images.split([1, 2])]
    assert torch.equal(torch.cat(parts), whole.codes)
    with pytest.raises(MethodError, match=r"torch\.Generator"):
        module.encode(images)
