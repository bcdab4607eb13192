"""xAR: the release's checkpoints fit, and cells are drawn one after the other, each image for itself."""

import dataclasses

import pytest
import torch

from reference_impls.generators.xar import METHOD, XarSettings, network_times, reversed_drift, sampling_times
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.noise import Draws
from reference_impls.layers.xar_transformer import cell_order
from reference_impls.tokenizers import mar_vae, titok
from reference_impls.tokenizers.mar_vae import MINI_CONFIG, MarVAE
from tests.vector_case import VECTORS
from tokenmark.contracts import MethodError
from tokenmark.parity.compare import key_problems
from tokenmark.parity.vector import load

TINY = {"grid": 8, "channels": 4, "classes": 10}
TINY |= {
    f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in (("dim", 32), ("depth", 1), ("heads", 2))
}


def tiny():
    torch.manual_seed(0)
    return METHOD.build(MarVAE(**MINI_CONFIG).double().eval(), **TINY).double().eval()


@pytest.fixture(scope="module")
def xar():
    return tiny()


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize(("variant", "parameters"), [("b", 172_638_224), ("l", 608_397_968), ("h", 1_186_024_096)])
def test_released_checkpoint_fits(variant, parameters):
    manifest, size = load(VECTORS / f"xar__{variant}.manifest.json"), METHOD.variants[variant]
    with torch.device("meta"):
        tokenizer = MarVAE(**mar_vae.METHOD.variants[size.tokenizer.partition("/")[2]].config)
        module = METHOD.build(tokenizer, **size.config)
    assert key_problems(module, manifest, METHOD.layout) == []
    assert module.parameters_total == parameters
    official = dict(manifest.config["sampling"])
    assert official.pop("latent_scale") == module.latent_scale
    assert dataclasses.asdict(METHOD.presets[f"xar-{variant}-paper"].settings) == official


@torch.no_grad()
def latents(xar, cfg, steps=3):
    settings = XarSettings(num_steps=steps, cfg=cfg)
    return xar.generate(torch.tensor([2, 9]), settings, Draws(seeded(1, 2), xar.place), Watch())


def test_no_guidance_is_the_limit_of_guidance(xar):
    torch.testing.assert_close(latents(xar, 1.0), latents(xar, 1.0 + 1e-12))
    strong = latents(xar, 5.0)
    torch.testing.assert_close(latents(xar, 1.0)[:, :, :4, :4], strong[:, :, :4, :4])  # nor is the first cell
    assert not torch.allclose(latents(xar, 1.0), strong)


@torch.no_grad()
def test_a_cell_sees_those_before_it_finished(xar):
    """What the caches give in a cell's later steps is what the network gives with the cell before at time 0."""
    torch.manual_seed(1)
    x, labels = torch.randn(2, 64, 4).double(), torch.tensor([2, 9])
    caches, at = xar.caches(), torch.tensor([[0, 700]]).expand(2, -1)
    for first in range(3):
        pair = xar.velocity(x[:, first * 16 : (first + 2) * 16], at, labels, first, caches)
        again = xar.velocity(x[:, (first + 1) * 16 : (first + 2) * 16], at[:, 1:], labels, first + 1, caches)
        torch.testing.assert_close(pair[:, 16:], again)
    times = torch.tensor([[0, 0, 0, 700]]).expand(2, -1)
    torch.testing.assert_close(xar.velocity(x, times, labels)[:, 48:], again)


def test_one_step_goes_straight_to_the_data(xar):
    assert torch.isfinite(latents(xar, 2.0, steps=1)).all()
    assert sampling_times(1) == [1.0, 0.0]


def test_times():
    assert sampling_times(5) == pytest.approx([1.0, 0.76, 0.52, 0.28, 0.04, 0.0])
    assert network_times(sampling_times(5), torch.float64) == [1000, 760, 520, 279, 40, 0]
    assert network_times(sampling_times(5), torch.bfloat16)[3] == 280


def test_the_drift_is_that_of_the_reversed_sde():
    """Velocity minus t times the score, for data at one point, whose score is known."""
    torch.manual_seed(0)
    data, noise, time = torch.randn(5), torch.randn(5), 0.3
    x = (1 - time) * data + time * noise
    score = -noise / time
    torch.testing.assert_close(reversed_drift(noise - data, x, time), noise - data - time * score)


def test_cells_are_in_reading_order():
    assert cell_order(4).tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]


def test_sizes_and_tokenizers_that_do_not_fit():
    with pytest.raises(MethodError, match="64 latents of 8 channels, the tokenizer reads 64 latents of 4 channels"):
        METHOD.build(MarVAE(**MINI_CONFIG), **{**TINY, "channels": 8})
    with pytest.raises(MethodError, match="reads 16 codes"):
        METHOD.build(titok.METHOD.build(**titok.METHOD.variants["mini-16"].config), **TINY)
    with pytest.raises(MethodError, match="multiple of 2"):
        METHOD.build(None, **{**TINY, "grid": 7})
