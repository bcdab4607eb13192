"""TokenBridge: its levels, its tokens, and the sampler of its generator's network."""

import pytest
import torch

from reference_impls.layers.gaussian_levels import GaussianLevels
from reference_impls.layers.tokenbridge_network import CHANNEL_ORDER, TokenBridgeNetwork
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


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    sizes = {"encoder": (32, 1, 2), "decoder": (24, 1, 2), "channel": (16, 2, 2)}
    module = TokenBridgeNetwork(grid=3, classes=5, buffer_size=2, levels=8, **sizes).eval()
    for block in (*module.channels.blocks, module.channels.final):
        torch.nn.init.normal_(block.adaLN_modulation[1].weight, std=0.5)
    return module


def drawn(seed, images=2):
    generator = torch.Generator().manual_seed(seed)
    orders = torch.rand(images, 9, generator=generator).argsort(1)
    return orders, torch.empty(images, 9, 16, 8).exponential_(generator=generator)


@pytest.mark.parametrize("steps", [1, 4, 9, 12])
def test_sampling_writes_every_token_and_an_image_does_not_depend_on_its_batch(network, steps):
    labels, (orders, noise) = torch.tensor([1, 4]), drawn(0)
    options = {"steps": steps, "cfg_scale": 2.5, "temperature": 0.9}
    codes = network.generate(labels, orders, noise, **options)
    assert codes.shape == (2, 9, 16)
    assert 0 <= codes.min() <= codes.max() < 8
    for index in range(2):
        alone = network.generate(*(part[index : index + 1] for part in (labels, orders, noise)), **options)
        assert torch.equal(alone[0], codes[index])


def test_guidance_and_noise_matter(network):
    labels, (orders, noise) = torch.tensor([1, 4]), drawn(1)
    plain = network.generate(labels, orders, noise, steps=3)
    assert not torch.equal(network.generate(labels, orders, drawn(2)[1], steps=3), plain)
    assert not torch.equal(network.generate(labels, orders, noise, steps=3, cfg_scale=8.0), plain)
    assert not torch.equal(network.generate(labels, orders, steps=3), plain)


def test_channels_are_written_in_the_release_s_order(network):
    features, codes = torch.randn(3, 24), torch.randint(0, 8, (3, 16))
    logits = network.channels(features, codes)
    for place in (0, 7, 14):  # a code changes the logits of what is written after it, and of nothing else
        other = codes.clone()
        channel = CHANNEL_ORDER[place]
        other[:, channel] = (other[:, channel] + 1) % 8
        changed = (network.channels(features, other) - logits).abs().amax((0, 2)) > 0
        assert not changed[: place + 1].any()
        assert changed[place + 1 :].all()
