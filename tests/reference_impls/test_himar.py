"""Hi-MAR: its sizes are the checkpoints', its sampler is sound; what it computes is held to the release by a vector."""

import math

import pytest
import torch

from reference_impls.generators.himar import METHOD, SamplerSettings, build
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.noise import Draws
from tests import vector_case
from tests.reference_impls.latent_generators import seeded, with_drawn_weights
from tests.reference_impls.mar_latents import small_vae, tokens_of
from tokenmark.contracts import MethodError
from tokenmark.parity.compare import key_problems
from tokenmark.parity.vector import load

TINY = {
    "img_size": 32,
    "vae_stride": 4,
    "vae_embed_dim": 4,
    "class_num": 10,
    "buffer_size": 2,
    "cond_scale": 2,
    "encoder_embed_dim": 32,
    "encoder_depth": 2,
    "encoder_num_heads": 4,
    "decoder_embed_dim": 48,
    "decoder_depth": 1,
    "decoder_num_heads": 4,
    "diffloss_d": 1,
    "diffloss_w": 32,
    "gdm_w": 32,
    "gdm_d": 2,
    "head": 4,
}
"""4 tokens, then 64, for the tokenizer that is bundled: 64 latents of 4 channels. Encoder and decoder differ."""
SMALL_STEPS = {"steps": 2, "diffusion_steps": 3, "grid_steps": 4}
FAST = SamplerSettings(**SMALL_STEPS)


@pytest.fixture(scope="module")
def tiny():
    return with_drawn_weights(build(small_vae(), **TINY))


def close(one, other, share=1e-9):
    return all(torch.allclose(a, b, rtol=share, atol=share * b.std().item()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("variant", "values"), [("b", 244_730_160), ("l", 529_490_480), ("h", 1_090_965_808)])
def test_a_variant_holds_its_checkpoint(variant, values):
    vector = load(vector_case.VECTORS / f"himar__{variant}.manifest.json")
    with torch.device("meta"):
        module = METHOD.build(None, **METHOD.variants[variant].config)
    assert key_problems(module, vector, METHOD.layout) == []
    tables = sum(table.numel() for table in module.buffers())
    assert module.parameters_total + tables == values
    assert METHOD.variants[variant].tokenizer == "mar-vae/kl16"
    official = vector.config["sampling"]
    assert METHOD.presets[f"himar-{variant}-paper"].settings == SamplerSettings(
        steps=official["num_iter"],
        cfg_scale=official["cfg"],
        small_cfg_scale=official["re_cfg"],
        cfg_schedule=official["cfg_schedule"],
        temperature=official["temperature"],
        diffusion_steps=int(vector.config["num_sampling_steps"]),
        grid_steps=vector.config["global_sampling_steps"],
    )
    assert module.latent_scale == official["latent_scale"]


def test_images_go_through_the_tokenizer(tiny):
    images = tiny.sample(torch.tensor([0, 9]), seeded(1, 2), FAST)
    assert images.shape == (2, 3, 32, 32)
    assert 0 <= images.min() < images.max() <= 1
    small, large = tokens_of(tiny, [0, 9], (1, 2), FAST)
    assert small.shape == (2, 4, 4)
    assert torch.allclose(images, tiny.tokenizer.decode_latents(large / 0.2325).clamp(0, 1))


@pytest.mark.parametrize("scale", ["cfg_scale", "small_cfg_scale"])
def test_a_scale_of_one_is_no_guidance(tiny, scale):
    plain, nearly = (
        tokens_of(tiny, [3, 1], (5, 6), SamplerSettings(**SMALL_STEPS, **{scale: value}))
        for value in (1.0, 1.0 + 1e-13)
    )
    assert close(plain, nearly, 1e-6)


def test_each_scale_guides_its_stage(tiny):
    small, large = tokens_of(tiny, [3], (5,), FAST)
    same, other = tokens_of(tiny, [3], (5,), SamplerSettings(**SMALL_STEPS, cfg_scale=6.0))
    assert torch.equal(small, same)
    assert not torch.allclose(large, other)
    assert not torch.allclose(small, tokens_of(tiny, [3], (5,), SamplerSettings(**SMALL_STEPS, small_cfg_scale=6.0))[0])


def test_both_stages_write_every_token(tiny):
    seen = []
    noise = Draws(seeded(5), torch.device("cpu"))
    settings = SamplerSettings(steps=3, diffusion_steps=2, grid_steps=2)
    small, large = tiny.generate(torch.tensor([3]), settings, noise, Watch(), lambda *now: seen.append(now))
    assert (small != 0).all()
    assert (large != 0).all()
    assert [left for stage, left in seen if stage == "large"] == [64, 55, 32]
    assert [left for stage, left in seen if stage == "small"] == [4, 3, 2, 1]
    assert tiny.steps(settings) == len(seen) == 7


def test_half_precision():
    module = with_drawn_weights(build(small_vae(), **TINY)).bfloat16()
    assert all(torch.isfinite(part.float()).all() for part in tokens_of(module, [3], (5,), FAST))


@pytest.mark.parametrize(("key", "step"), [("head.input_proj.bias", 0), ("grid_head.t_embedder.mlp.0.bias", 4)])
def test_broken_weights_name_the_step(key, step):
    module = with_drawn_weights(build(small_vae(), **TINY))
    with torch.no_grad():
        module.get_parameter(key)[0] = math.nan
    with pytest.raises(MethodError, match=f"step {step} "):
        module.sample(torch.tensor([1]), seeded(1), FAST)


def test_sizes_and_tokenizers_that_do_not_fit():
    with pytest.raises(MethodError, match="writes 64 latents of 4 channels"):
        build(small_vae(z_channels=8), **TINY)
    with pytest.raises(MethodError, match="cond_scale must be 1 to 8"):
        build(None, **{**TINY, "cond_scale": 9})
