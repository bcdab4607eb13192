"""MAR: its sizes are the checkpoints', its sampler is sound; what it computes is held to the release by its vectors."""

import math

import pytest
import torch

from reference_impls.generators.mar import METHOD, SamplerSettings, build, patchify, unpatchify
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.denoising_mlp import cosine_betas
from reference_impls.layers.mar_sampling import iterations
from reference_impls.layers.noise import Draws
from reference_impls.tokenizers.mar_vae import MarVAE
from tests import vector_case
from tests.reference_impls.latent_generators import seeded, with_drawn_weights
from tests.reference_impls.mar_latents import small_vae, tokens_of
from tokenmark.contracts import MethodError
from tokenmark.parity.compare import key_problems
from tokenmark.parity.vector import load

TINY = {
    "img_size": 32,
    "vae_stride": 4,
    "patch_size": 2,
    "vae_embed_dim": 4,
    "class_num": 10,
    "buffer_size": 2,
    **{f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in (("embed_dim", 32), ("depth", 2))},
    "encoder_num_heads": 4,
    "decoder_num_heads": 4,
    "diffloss_d": 2,
    "diffloss_w": 32,
}
"""16 tokens of 2 x 2 latents, for the tokenizer that is bundled: 64 latents of 4 channels."""
FAST = SamplerSettings(steps=4, diffusion_steps=4, cfg_scale=2.5)


@pytest.fixture(scope="module")
def tiny():
    return with_drawn_weights(build(small_vae(), **TINY))


@pytest.mark.parametrize(("variant", "parameters"), [("b", 207_924_768), ("l", 478_326_304), ("h", 942_403_104)])
def test_a_variant_holds_its_checkpoint(variant, parameters):
    vector = load(vector_case.VECTORS / f"mar__{variant}.manifest.json")
    with torch.device("meta"):
        module = METHOD.build(None, **METHOD.variants[variant].config)
    assert key_problems(module, vector, METHOD.layout) == []
    assert module.parameters_total == parameters
    assert METHOD.variants[variant].tokenizer == "mar-vae/kl16"
    official = vector.config["sampling"]
    assert METHOD.presets[f"mar-{variant}-paper"].settings == SamplerSettings(
        steps=official["num_iter"],
        cfg_scale=official["cfg"],
        cfg_schedule=official["cfg_schedule"],
        temperature=official["temperature"],
        diffusion_steps=int(official["num_sampling_steps"]),
    )
    assert module.latent_scale == official["latent_scale"]


def test_presets_without_guidance_are_colder():
    unguided = [preset for name, preset in METHOD.presets.items() if name.endswith("-unguided")]
    assert {(preset.settings.cfg_scale, preset.settings.temperature) for preset in unguided} == {(1.0, 0.95)}
    assert [preset.variants for preset in unguided] == [("b",), ("l",), ("h",)]


def test_the_released_sizes_write_for_the_released_tokenizer():
    with torch.device("meta"):
        tokenizer = MarVAE(image_size=256)
        assert METHOD.build(tokenizer, **METHOD.variants["b"].config).tokenizer is tokenizer


def test_images_go_through_the_tokenizer(tiny):
    images = tiny.sample(torch.tensor([0, 9]), seeded(1, 2), FAST)
    assert images.shape == (2, 3, 32, 32)
    assert 0 <= images.min() < images.max() <= 1
    latents = unpatchify(tokens_of(tiny, [0, 9], (1, 2), FAST), 2, 4) / 0.2325
    assert torch.allclose(images, tiny.tokenizer.decode_latents(latents.flatten(2).transpose(1, 2)).clamp(0, 1))


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_a_scale_of_one_is_no_guidance(tiny, schedule):
    plain, nearly = (
        tokens_of(tiny, [3, 1], (5, 6), SamplerSettings(4, scale, schedule, diffusion_steps=4))
        for scale in (1.0, 1.0 + 1e-13)
    )
    assert torch.allclose(plain, nearly, rtol=1e-6, atol=1e-6 * plain.std().item())


def test_no_temperature_leaves_the_start_only(tiny):
    class Loud(Draws):
        def normal(self, name, step, *shape):
            return super().normal(name, step, *shape) * (1000.0 if name == "steps" else 1.0)

    cold = SamplerSettings(steps=4, diffusion_steps=4, temperature=0.0)
    device, labels = torch.device("cpu"), torch.tensor([3])
    loud = tiny.generate(labels, cold, Loud(seeded(5), device), Watch())
    assert torch.equal(loud, tiny.generate(labels, cold, Draws(seeded(5), device), Watch()))


@pytest.mark.parametrize("steps", [1, 2, 7, 16, 40])
def test_every_token_is_written_once(steps):
    plan = iterations(16, steps, 3.0, "linear")
    assert [now.masked for now in plan] == [16, *(now.left for now in plan[:-1])]
    assert plan[-1].left == 0
    assert all(now.masked > now.left for now in plan)
    assert [now.scale for now in plan] == sorted(now.scale for now in plan)
    assert plan[-1].scale == 1.0 + 2.0 * 15 / 16


def test_more_iterations_than_tokens(tiny):
    assert tiny.steps(SamplerSettings(steps=40)) == tiny.length == 16
    assert torch.isfinite(tokens_of(tiny, [3], (5,), SamplerSettings(steps=40, diffusion_steps=2))).all()


def test_patches():
    latents = torch.randn(2, 3, 8, 8)
    tokens = patchify(latents, 2)
    assert torch.equal(tokens[:, 5, :].reshape(2, 3, 2, 2), latents[:, :, 2:4, 2:4])
    assert torch.equal(unpatchify(tokens, 2, 4), latents)


def test_the_cosine_schedule():
    betas = cosine_betas(1000)
    kept = math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert (1.0 - betas)[:500].prod() == pytest.approx(kept)
    assert betas.max() == betas[-1] == 0.999


def test_half_precision():
    module = with_drawn_weights(build(small_vae(), **TINY)).bfloat16()
    assert torch.isfinite(tokens_of(module, [3], (5,), SamplerSettings(2, 1.5, diffusion_steps=2)).float()).all()


def test_sizes_and_tokenizers_that_do_not_fit():
    with pytest.raises(MethodError, match="patch_size must divide the 8 latents"):
        build(None, **{**TINY, "patch_size": 3})


@pytest.mark.parametrize("changes", [{"image_size": 64}, {"z_channels": 8}])
def test_a_tokenizer_that_does_not_fit(changes):
    with pytest.raises(MethodError, match="writes 64 latents of 4 channels"):
        build(small_vae(**changes), **TINY)
