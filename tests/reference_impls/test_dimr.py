"""DiMR: its sizes hold the release's checkpoints; its sampler solves the equation, and says what is wrong."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from reference_impls.generators.dimr import METHOD, SamplerSettings
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.dpm_solver import DpmSolver, scaled_linear_betas, step_orders
from reference_impls.layers.noise import Draws
from tests import vector_case
from tokenmark import registry
from tokenmark.contracts import MethodError, TokenizerInfo, TokenizerMethod
from tokenmark.parity.compare import key_problems
from tokenmark.parity.vector import load

COARSE = {
    "block_type": "TransformerBlock",
    "dim": 24,
    "hidden_dim": 48,
    "num_attention_heads": 2,
    "num_blocks": 3,
    "max_height": 2,
    "max_width": 2,
    "input_feature_ratio": 2,
    "final_kernel_size": 3,
}
FINE = {
    "block_type": "ConvNeXtBlock",
    "dim": 16,
    "hidden_dim": 24,
    "kernel_size": 3,
    "num_blocks": 2,
    "max_height": 4,
    "max_width": 4,
    "input_feature_ratio": 1,
    "final_kernel_size": 3,
}
TINY = {"channels": 4, "num_classes": 6, "stage_configs": (COARSE, FINE)}


class Reader:
    """A tokenizer that shows three channels of its latents."""

    def __init__(self, tokens=16, channels=4, codebooks=()):
        self.info = TokenizerInfo(
            image_size=4,
            max_tokens=tokens,
            codebook_sizes=codebooks,
            bits_per_token=32.0 * channels,
            variable_length=False,
            stochastic=True,
            parameters=0,
        )

    def decode(self, tokens):
        self.seen = tokens
        return tokens.latents[..., :3].transpose(1, 2).reshape(-1, 3, 4, 4).sigmoid()


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    module = METHOD.build(Reader(), **TINY).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / max(1, parameter.shape[-1]) ** 0.5)
    return module


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize(("variant", "parameters"), [("xl-2r-256", 505_046_408), ("g-2r-256", 1_056_352_904)])
def test_released_checkpoint_fits(variant, parameters):
    manifest = load(vector_case.VECTORS / f"dimr__{variant}.manifest.json")
    with torch.device("meta"):
        module = METHOD.build(Reader(1024), **METHOD.variants[variant].config)
    assert key_problems(module, manifest, METHOD.layout) == []
    assert module.parameters_total == parameters
    official, preset = manifest.config["sampling"], METHOD.presets[f"dimr-{variant}-release"].settings
    assert (preset.steps, preset.cfg_scale, preset.cfg_scale_pow) == (
        official["steps"],
        official["cfg_scale"],
        official["cfg_scale_pow"],
    )


@pytest.mark.parametrize("variant", sorted(METHOD.variants))
def test_the_tokenizer_that_a_variant_names_reads_its_latents(variant):
    name, size = METHOD.variants[variant].tokenizer.split("/")
    tokenizer = registry.get_as(TokenizerMethod, name)
    with torch.device("meta"):
        METHOD.build(tokenizer.build(**tokenizer.variants[size].config), **METHOD.variants[variant].config)


def test_images_may_differ_in_time(tiny):
    x, labels = torch.randn(2, 4, 4, 4, dtype=torch.float64), torch.tensor([0, 5])
    when = torch.tensor([-3.0, 2.0], dtype=torch.float64)
    together = tiny(x, when, labels)[-1]
    alone = torch.cat([tiny(x[i : i + 1], when[i : i + 1], labels[i : i + 1])[-1] for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


def latents(module, settings):
    labels = torch.tensor([3, 1])
    return module.generate(labels, settings, Draws(seeded(1, 2), labels.device), Watch())


def test_unguided_is_guided_by_nothing(tiny):
    plain = latents(tiny, SamplerSettings(steps=4, cfg_scale=0.0))
    assert torch.equal(plain, latents(tiny, SamplerSettings(steps=4, cfg_scale=1.0, cfg_scale_pow=2.0)))
    assert torch.equal(plain, latents(tiny, SamplerSettings(steps=4, cfg_scale=0.0, cfg_scale_pow=2.0)))
    # A scale too small to matter goes through both halves all the same.
    torch.testing.assert_close(plain, latents(tiny, SamplerSettings(steps=4, cfg_scale=1e-14)), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(plain, latents(tiny, SamplerSettings(steps=4, cfg_scale=0.9)))


def test_guidance_rises_along_a_cosine():
    settings = SamplerSettings(cfg_scale=3.0, cfg_scale_pow=2.0)
    assert settings.guidance_weight(1.0) == 0.0
    assert settings.guidance_weight(0.0) == pytest.approx(2.0)
    assert settings.guidance_weight(1.0 - math.sqrt(0.5)) == pytest.approx(1.0)
    assert SamplerSettings(cfg_scale=0.4).guidance_weight(0.3) == 0.4


@pytest.mark.parametrize("calls", range(1, 30))
def test_the_solver_calls_the_network_as_often_as_was_asked(calls):
    times = []

    def model(x, time):
        times.append(time)
        return torch.zeros_like(x)

    DpmSolver(scaled_linear_betas(1000), calls).sample(model, torch.ones(1, 2))
    assert len(times) == calls == sum(step_orders(calls))
    assert times[0] == 1.0
    assert all(later < earlier for earlier, later in itertools.pairwise(times))


def test_the_solver_comes_close_to_the_solution():
    """For data that are Gaussian the noise is known in closed form, and so is where every start ends."""
    betas, spread = scaled_linear_betas(1000), 0.3
    grid, log_alphas = np.arange(1, 1001) / 1000, 0.5 * np.cumsum(np.log1p(-betas))

    def deviations(time):
        alpha = math.exp(np.interp(time, grid, log_alphas))
        sigma = math.sqrt(1.0 - alpha**2)
        return sigma, math.hypot(alpha * spread, sigma)

    def model(x, time):
        sigma, whole = deviations(time)
        return sigma / whole**2 * x

    start = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    exact = start * deviations(0.001)[1] / deviations(1.0)[1]
    errors = [(DpmSolver(betas, calls).sample(model, start) - exact).abs().max().item() for calls in (24, 96, 384)]
    assert errors[0] < 0.1
    assert errors[1] < errors[0] / 4
    assert errors[2] < errors[1] / 4


def test_sizes_that_cannot_be():
    for wrong, what in (
        ({"block_type": "Mamba"}, "block_type"),
        ({"image_input_ratio": 2}, "image_input_ratio"),
        ({"num_attention_heads": 5}, "heads"),
    ):
        with pytest.raises(MethodError, match=what):
            METHOD.build(None, **{**TINY, "stage_configs": ({**COARSE, **wrong}, FINE)})


@pytest.mark.parametrize("preset", sorted(METHOD.presets))
def test_presets_run(tiny, preset):
    settings = dataclasses.replace(METHOD.presets[preset].settings, steps=12)  # all of them take long on a processor
    images = tiny.float().sample(torch.tensor([2]), seeded(3), settings)
    assert torch.isfinite(images).all()
