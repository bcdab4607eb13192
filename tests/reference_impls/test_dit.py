"""DiT: its checkpoints' sizes, and a sampler that guides, repeats and refuses as it must (its numbers: test_parity)."""

import pytest
import torch

from reference_impls.generators.dit import METHOD
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.diffusion import linear_betas, respaced_steps
from reference_impls.layers.latent_diffusion import DiffusionSettings, ImplicitDiffusion, LatentDiffusion
from reference_impls.layers.noise import Draws
from tests.reference_impls.latent_generators import seeded, small_vae, with_drawn_weights
from tests.vector_case import VECTORS
from tokenmark import registry
from tokenmark.contracts import MethodError, TokenizerMethod
from tokenmark.parity.compare import key_problems
from tokenmark.parity.vector import load

SMALL = {"input_size": 8, "hidden_size": 32, "depth": 2, "num_heads": 2, "num_classes": 10}
BRIEF = DiffusionSettings(steps=4, cfg_scale=2.0)


@pytest.fixture(scope="module")
def small():
    return with_drawn_weights(METHOD.build(small_vae(), **SMALL))


@pytest.mark.parametrize(("variant", "parameters"), [("xl-2-256", 675_129_632), ("xl-2-512", 676_014_368)])
def test_variant_holds_the_checkpoint_and_fits_its_tokenizer(variant, parameters):
    manifest, size = load(VECTORS / f"dit__{variant}.manifest.json"), METHOD.variants[variant]
    method, _, tokenizer = size.tokenizer.partition("/")
    with torch.device("meta"):
        reader = registry.get_as(TokenizerMethod, method)
        module = METHOD.build(reader.build(**reader.variants[tokenizer].config), **size.config)
    assert not key_problems(module, manifest, METHOD.layout)
    assert module.parameters_total == parameters
    official, paper = manifest.config["sampling"], METHOD.presets[f"dit-{variant}-paper"].settings
    assert (paper.steps, paper.cfg_scale) == (official["num_sampling_steps"], official["cfg_scale"])
    assert module.latent_scale == manifest.config["sampling"].get("vae_scale", module.latent_scale)


def test_presets_are_the_rows_of_the_paper():
    printed = [preset for preset in METHOD.presets.values() if preset.printed]
    rows = {(*preset.variants, preset.settings.cfg_scale): preset.printed for preset in printed}
    assert len(rows) == len(printed) == 6
    assert rows["xl-2-256", 1.5].endswith("table 2: gFID 2.27")
    assert rows["xl-2-512", 1.0].endswith("table 3: gFID 12.03")


@pytest.mark.parametrize(
    "settings",
    [BRIEF, DiffusionSettings(4, 1.0), DiffusionSettings(5, 2.0, "ddim"), DiffusionSettings(5, 1.0, "ddim", 1.0)],
)
def test_an_image_does_not_depend_on_its_batch(small, settings):
    labels = torch.tensor([3, 1, 4])
    together = small.sample(labels, seeded(5, 6, 7), settings)
    alone = torch.cat([small.sample(labels[i : i + 1], seeded(5 + i), settings) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)
    assert together.shape == (3, 3, 32, 32)
    assert together.dtype == torch.float64
    assert 0 <= together.min() <= together.max() <= 1
    assert not torch.allclose(together, small.sample(labels, seeded(8, 9, 10), settings))
    assert not torch.allclose(together, small.sample(labels + 1, seeded(5, 6, 7), settings))
    assert small.sample(labels[:0], [], settings).shape == (0, 3, 32, 32)


def test_guidance_moves_the_noise_of_three_channels(small):
    x, times, labels = torch.randn(2, 4, 8, 8).double(), torch.tensor([900, 30]), torch.tensor([0, 9])
    told, untold = small(x, times, labels), small(x, times, torch.full_like(labels, 10))
    torch.testing.assert_close(small.guided(x, times, labels, 1.0), told)
    guided = small.guided(x, times, labels, 3.0)
    torch.testing.assert_close(guided[:, :3], (untold + 3.0 * (told - untold))[:, :3])
    torch.testing.assert_close(guided[:, 3:], told[:, 3:])


class Knowing(LatentDiffusion):
    """A network that knows the image, and so the noise in whatever it is shown."""

    channels, side, classes, latent_scale = 4, 2, 1, 1.0

    def __init__(self, clean):
        super().__init__()
        self.clean = torch.nn.Parameter(clean)
        self.kept = torch.from_numpy((1.0 - linear_betas(1000)).cumprod())

    def forward(self, x, times, labels):
        kept = self.kept[times][:, None, None, None]
        noise = (x - kept.sqrt() * self.clean.repeat(len(x) // len(self.clean), 1, 1, 1)) / (1.0 - kept).sqrt()
        return torch.cat([noise, torch.zeros_like(noise)], dim=1)


@pytest.mark.parametrize(
    "settings",
    [BRIEF, DiffusionSettings(1, 1.0), DiffusionSettings(10, 2.0, "ddim"), DiffusionSettings(4, 1.0, "ddim", 0.5)],
)
def test_samplers_find_an_image_that_the_network_knows(settings):
    clean = torch.randn(2, 4, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    noise = Draws(seeded(1, 2), torch.device("cpu"))
    found = Knowing(clean).generate(torch.zeros(2, dtype=torch.int64), settings, noise, Watch())
    torch.testing.assert_close(found, clean)


def test_ddim_with_all_its_noise_has_the_variance_of_the_posterior():
    diffusion = ImplicitDiffusion(linear_betas(1000), respaced_steps(1000, "ddim8"))
    output, x = torch.randn(2, 1, 8, 2, 2).double()
    output[:, 4:] = -1.0  # the least variance that the network can ask for: the posterior's
    for row in range(1, 8):
        ancestral, log_variance = diffusion.before(output, x[:, :4], row)
        mean, deviation = diffusion.implicit(output, x[:, :4], row, 1.0)
        assert deviation**2 == pytest.approx(log_variance.exp().mean().item())
        torch.testing.assert_close(mean, ancestral)


@pytest.mark.parametrize("changes", [{"image_size": 64}, {"z_channels": 8}])
def test_other_tokenizers_are_refused(changes):
    with pytest.raises(MethodError, match="writes 64 latents of 4 channels"):
        METHOD.build(small_vae(**changes), **SMALL)


def test_patches_must_tile_the_latents():
    with pytest.raises(MethodError, match="multiple of patch_size 2"):
        METHOD.build(None, **{**SMALL, "input_size": 7})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be 1 to 1000"),
        ({"steps": 1001}, "steps must be 1 to 1000"),
        ({"steps": 300, "sampler": "ddim"}, "no stride takes 'ddim300'"),
        ({"cfg_scale": 0.5}, "cfg_scale must be at least 1"),
        ({"cfg_scale": float("nan")}, "cfg_scale must be at least 1"),
        ({"cfg_scale": float("inf")}, "cfg_scale must be at least 1"),
        ({"sampler": "euler"}, "sampler must be ddpm or ddim"),
        ({"sampler": "ddim", "eta": 1.5}, "eta must be 0 to 1"),
        ({"eta": 0.5}, "sampler ddim"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(MethodError, match=message):
        DiffusionSettings(**settings)
