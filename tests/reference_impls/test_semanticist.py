"""Semanticist: sizes, slots that may be left out, and noise that decoding draws; and the diffusion sampler below it."""

import pytest
import torch

from reference_impls.layers.diffusion import RespacedDiffusion, guide, linear_betas, respaced_steps
from reference_impls.tokenizers.semanticist import METHOD
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError, Tokens


@pytest.mark.parametrize(("variant", "values"), [("l", 609_756_771), ("xl", 826_651_491)])
def test_released_sizes(variant, values):
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants[variant].config)
    assert sum(value.numel() for value in module.state_dict().values()) == values
    assert module.info.max_tokens == 256
    assert module.info.bits_per_token == 16 * 32
    assert len(module.diffusion.steps) == 250


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    module = METHOD.build(**SMALL["semanticist"]).eval()
    for name, parameter in module.named_parameters():
        if "adaLN" in name or "final_layer" in name:  # these begin at zero, and would hide what the slots do
            torch.nn.init.normal_(parameter, std=0.1)
    return module


def decoded(module, tokens, seed=0):
    return module.decode(tokens, torch.Generator().manual_seed(seed))


def test_few_slots_are_the_first_of_all_and_blanks_stand_for_the_rest(small):
    images = torch.rand(2, 3, 32, 32)
    whole, short = small.encode(images), small.encode(images, tokens=3)
    torch.testing.assert_close(short.latents, whole.latents[:, :3])
    assert short.bits.tolist() == [3 * small.info.bits_per_token] * 2
    cut = Tokens(lengths=torch.tensor([3, 3]), bits=short.bits, latents=whole.latents)
    torch.testing.assert_close(decoded(small, cut), decoded(small, short))
    mixed = Tokens(lengths=torch.tensor([3, small.max_tokens]), bits=short.bits, latents=whole.latents)
    torch.testing.assert_close(decoded(small, mixed)[:1], decoded(small, short)[:1])
    torch.testing.assert_close(decoded(small, mixed)[1:], decoded(small, whole)[1:])
    assert not torch.allclose(decoded(small, whole), decoded(small, short))


def test_later_slots_do_not_change_earlier_ones(small):
    images = torch.rand(1, 3, 32, 32)
    before = small.encode(images).latents
    kept = small.encoder.slot_embed.data.clone()
    small.encoder.slot_embed.data[:, 4:] += 1.0
    after = small.encode(images).latents
    small.encoder.slot_embed.data.copy_(kept)
    torch.testing.assert_close(after[:, :4], before[:, :4])
    assert not torch.allclose(after[:, 4:], before[:, 4:])


def test_noise_is_repeatable_and_ignores_how_images_are_batched(small):
    tokens = small.encode(torch.rand(3, 3, 32, 32))
    together = decoded(small, tokens)
    generator = torch.Generator().manual_seed(0)
    parts = [slice(0, 1), slice(1, 3)]
    alone = [
        small.decode(Tokens(lengths=tokens.lengths[p], bits=tokens.bits[p], latents=tokens.latents[p]), generator)
        for p in parts
    ]
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-4, rtol=0)
    assert not torch.allclose(decoded(small, tokens, seed=1), together)
    with pytest.raises(MethodError, match=r"torch\.Generator"):
        small.decode(tokens)


def test_slots_are_standardised(small):
    latents = small.encode(torch.rand(2, 3, 32, 32)).latents
    torch.testing.assert_close(latents.mean(-1), torch.zeros(latents.shape[:2]), atol=1e-5, rtol=0)
    torch.testing.assert_close(latents.std(-1), torch.ones(latents.shape[:2]))


def test_image_size_must_fit_the_patches():
    with pytest.raises(MethodError, match="multiple"):
        METHOD.build(**{**SMALL["semanticist"], "image_size": 36})


@pytest.mark.parametrize(
    ("spacing", "steps"),
    [("4", [0, 333, 666, 999]), (1, [0]), ("ddim5", [0, 200, 400, 600, 800]), ("2,3", [0, 499, 500, 750, 999])],
)
def test_respaced_steps(spacing, steps):
    assert respaced_steps(1000, spacing) == steps


@pytest.mark.parametrize("spacing", ["ddim999", "1001", "0", "many", "", -3, "500,501,1"])
def test_impossible_steps(spacing):
    with pytest.raises(MethodError):
        respaced_steps(1000, spacing)


@pytest.mark.parametrize("steps", [1, 2, 50])
def test_a_perfect_model_finds_the_image(steps):
    diffusion = RespacedDiffusion(linear_betas(1000), respaced_steps(1000, steps))
    kept = torch.cumprod(1 - torch.from_numpy(linear_betas(1000)), 0)
    truth = torch.randn(2, 3, 4, 4, dtype=torch.float64)

    def model(x, times):
        level = kept[times].reshape(-1, 1, 1, 1)
        return torch.cat([(x - level.sqrt() * truth) / (1 - level).sqrt(), torch.zeros_like(x)], dim=1)

    noises = [torch.randn_like(truth) for _ in range(steps - 1)]
    torch.testing.assert_close(diffusion.sample(model, torch.randn_like(truth), noises), truth)


def test_guidance_leaves_the_variance():
    told, untold = torch.ones(1, 4, 1, 1), torch.zeros(1, 4, 1, 1)
    assert guide(told, untold, 3.0, 2).flatten().tolist() == [3.0, 3.0, 1.0, 1.0]
    assert torch.equal(guide(told, untold, 1.0, 2), told)
