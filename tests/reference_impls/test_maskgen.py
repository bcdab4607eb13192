"""MaskGen: its checkpoints, its samplers' settings, and samples that do not depend on their batch."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from reference_impls.generators.maskgen import METHOD, MaskGenSettings, build, release_arguments
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.mar_sampling import MarSettings
from reference_impls.layers.maskgen import MaskGenKL, MaskGenVQ, Text, score_features
from reference_impls.layers.maskgen_sampling import (
    VqSettings,
    sampled_codes,
    sampled_latents,
)
from reference_impls.layers.noise import Draws
from tests import vector_case
from tokenmark import registry
from tokenmark.contracts import MethodError, Prompts, TokenizerInfo, TokenizerMethod
from tokenmark.parity.compare import key_problems
from tokenmark.parity.vector import load

SIZES = {"length": 6, "width": 16, "depth": 2, "heads": 2, "text_channels": 8, "score_width": 4}
KL_SETTINGS = MarSettings(steps=3, cfg_scale=3.0, diffusion_steps=4)


def lively(module):
    """In float64, with modulations that are not 0, so that text matters."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if ".made.1." in name or "adaLN" in name or "final_layer" in name or name.startswith("embeddings"):
                parameter.normal_(std=0.3)
    return module.double().eval()


@pytest.fixture(scope="module")
def codes_module():
    torch.manual_seed(0)
    return lively(MaskGenVQ(codebook_size=20, condition_num_classes=3, **SIZES))


@pytest.fixture(scope="module")
def latents_module():
    torch.manual_seed(0)
    return lively(MaskGenKL(channels=5, diffloss_d=1, diffloss_w=12, latent_scale=0.5, **SIZES))


def texts(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(count, *shape, 8, generator=generator, dtype=torch.float64) for shape in ((3,), ())]
    return Text(*made, torch.full((count,), 6.5, dtype=torch.float64))


EMPTY = texts(1, seed=9)


def picked(text, rows):
    return Text(*(part[rows] for part in text))


def noise(*seeds):
    return Draws([torch.Generator().manual_seed(seed) for seed in seeds], torch.device("cpu"))


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [("vq-l", 604_311_552), ("vq-xl", 1_176_611_840), ("kl-l", 641_364_000), ("kl-xl", 1_237_345_312)],
)
def test_released_checkpoint_fits(variant, parameters):
    vector = load(vector_case.VECTORS / f"maskgen__{variant}.manifest.json")
    config = METHOD.variants[variant].config
    assert dict(config) == {name: value for name, value in release_arguments(vector.config).items() if name in config}
    with torch.device("meta"):
        module, same = build(None, **config), build(None, **release_arguments(vector.config))
    assert key_problems(module, vector, METHOD.layout) == key_problems(same, vector, METHOD.layout) == []
    assert module.parameters_total == parameters
    given = vector.config["model"]["maskgen"]
    preset = METHOD.presets[f"maskgen-{variant[:2]}-paper"]
    assert variant in preset.variants
    assert preset.settings == MaskGenSettings(
        steps=given["num_iter"],
        cfg_scale=given["cfg"],
        cfg_schedule=given.get("cfg_schedule", "cosine"),
        temperature=given["temperature"],
        aesthetic_score=given["sample_aesthetic_score"],
    )
    kind, _, size = METHOD.variants[variant].tokenizer.partition("/")
    sizes = registry.get_as(TokenizerMethod, kind).variants[size].config
    assert sizes["num_latent_tokens"] == config["num_latent_tokens"]
    assert sizes["codebook_size"] == config.get("codebook_size")


@pytest.mark.parametrize(
    "settings",
    [VqSettings(steps=4, temperature=2.0, cfg_scale=3.0), VqSettings(steps=3, prob_sorting=False)],
    ids=["sorted", "unsorted"],
)
def test_codes_do_not_depend_on_their_batch(codes_module, settings):
    text = texts(3)
    together = sampled_codes(codes_module, text, EMPTY, settings, noise(5, 6, 7), Watch())
    alone = [
        sampled_codes(codes_module, picked(text, slice(i, i + 1)), EMPTY, settings, noise(5 + i), Watch())
        for i in range(3)
    ]
    assert torch.equal(together, torch.cat(alone))
    assert together.shape == (3, 6)
    assert 0 <= together.min() <= together.max() < 20
    assert not torch.equal(together, sampled_codes(codes_module, text, EMPTY, settings, noise(8, 9, 10), Watch()))


def test_latents_do_not_depend_on_their_batch(latents_module):
    text = texts(3)
    together = sampled_latents(latents_module, text, EMPTY, KL_SETTINGS, noise(5, 6, 7), Watch())
    alone = [
        sampled_latents(latents_module, picked(text, slice(i, i + 1)), EMPTY, KL_SETTINGS, noise(5 + i), Watch())
        for i in range(3)
    ]
    assert together.shape == (3, 6, 5)
    assert together.dtype == torch.float64
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-9, atol=1e-9)


def test_text_and_score_matter(latents_module):
    text, other = texts(1), texts(1, seed=1)
    given = sampled_latents(latents_module, text, EMPTY, KL_SETTINGS, noise(1), Watch())
    assert not torch.allclose(given, sampled_latents(latents_module, other, EMPTY, KL_SETTINGS, noise(1), Watch()))
    scored = text._replace(scores=text.scores - 2.0)
    assert not torch.allclose(given, sampled_latents(latents_module, scored, EMPTY, KL_SETTINGS, noise(1), Watch()))


def test_unguided_latents_are_those_guided_by_one(latents_module):
    text = texts(2)
    one, almost = (MarSettings(steps=3, diffusion_steps=4, cfg_scale=scale) for scale in (1.0, 1.0 + 1e-13))
    unguided = sampled_latents(latents_module, text, EMPTY, one, noise(1, 2), Watch())
    guided = sampled_latents(latents_module, text, EMPTY, almost, noise(1, 2), Watch())
    torch.testing.assert_close(unguided, guided, rtol=1e-8, atol=1e-8)


def test_codes_without_guidance_do_not_know_the_empty_text(codes_module):
    settings = VqSettings(steps=3, cfg_scale=0.0, cfg_schedule="constant")
    text = texts(2)
    first, second = (
        sampled_codes(codes_module, text, empty, settings, noise(1, 2), Watch()) for empty in (EMPTY, texts(1, seed=4))
    )
    assert torch.equal(first, second)


def test_guidance_grows_to_its_scale():
    for schedule in ("cosine", "linear"):
        weights = [VqSettings(steps=8, cfg_scale=5.0, cfg_schedule=schedule).weight(step) for step in range(8)]
        assert weights == sorted(weights)
        assert weights[0] > 1.0
        assert weights[-1] == pytest.approx(5.0)


def test_scores_are_sines_then_cosines_or_in_turns():
    scores = torch.tensor([0.25], dtype=torch.float64)
    apart = score_features(scores, 6, 1000.0, interleaved=False)
    turns = score_features(scores, 6, 1000.0, interleaved=True)
    assert apart[0, 0] == torch.sin(torch.tensor(25.0, dtype=torch.float64))
    assert torch.equal(apart.unflatten(1, (2, 3)).transpose(1, 2).flatten(1), turns)


def test_broken_weights_are_told():
    module = MaskGenVQ(codebook_size=20, condition_num_classes=3, **SIZES)
    with torch.no_grad():
        module.embeddings.weight.fill_(torch.nan)
    watch = Watch()
    sampled_codes(module, texts(1), EMPTY, VqSettings(steps=2), noise(1), watch)
    with pytest.raises(MethodError, match="step 0"):
        watch.check("the sampler")


@pytest.mark.parametrize(
    ("settings", "chosen", "message"),
    [
        (VqSettings, {"steps": 0}, "steps must be at least 1"),
        (VqSettings, {"cfg_schedule": "flippedcosine"}, "cosine, linear or constant"),
        (VqSettings, {"temperature": -1.0}, "temperature must be 0 or more"),
        (VqSettings, {"cfg_scale": float("nan")}, "cfg_scale must be 0 or more"),
        (MarSettings, {"steps": 0}, "steps must be at least 1"),
        (MarSettings, {"cfg_schedule": "cosine"}, "linear or constant"),
        (MarSettings, {"diffusion_steps": 2000}, "cannot be taken"),
    ],
)
def test_settings_out_of_range(settings, chosen, message):
    with pytest.raises(MethodError, match=message):
        settings(**chosen)


def test_settings_of_the_whole():
    settings = MaskGenSettings()
    with pytest.raises(MethodError, match="cfg_schedule of latents must be linear or constant"):
        settings.of_latents()
    assert MaskGenSettings(cfg_schedule="linear", steps=32).of_latents().steps == 32
    for changes in ({"aesthetic_score": float("nan")}, {"diffusion_steps": 0}, {"steps": 0}):
        with pytest.raises(MethodError, match=next(iter(changes))):
            MaskGenSettings(**changes)


def test_a_network_without_scores_is_refused():
    vector = load(vector_case.VECTORS / "maskgen__vq-small.json")
    sizes = {**vector.config["model"]["maskgen"], "micro_condition": False}
    with pytest.raises(MethodError, match="micro_condition must be true"):
        release_arguments({"model": {**vector.config["model"], "maskgen": sizes}})


def told(tokens=5, channels=8, images=2):
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape):
        return torch.randn(*shape, generator=generator)

    return Prompts(
        states=drawn(images, tokens, channels),
        inner=drawn(images, tokens, channels),
        pooled=drawn(images, channels),
        empty_states=drawn(1, tokens, channels),
        empty_inner=drawn(1, tokens, channels),
        empty_pooled=drawn(1, channels),
    )


class Shown(nn.Module):
    """A tokenizer that keeps what it is told."""

    def __init__(self, text, **code):
        super().__init__()
        self.info = TokenizerInfo(
            image_size=2, variable_length=False, stochastic=False, parameters=0, text=text, **code
        )

    def decode(self, tokens, generator=None, text=None):
        self.tokens, self.seen = tokens, text
        return torch.zeros(len(tokens.lengths), 3, 2, 2)


SIDE = {"num_latent_tokens": 6, "decoder_embed_dim": 16, "decoder_depth": 2, "decoder_num_heads": 2}
TEXT = {"text_tokens": 5, "text_embed_dim": 8, "micro_condition_embed_dim": 4}
CODES = {"max_tokens": 6, "codebook_sizes": (20,), "bits_per_token": math.log2(20)}


def test_network_and_decoder_are_told_states_of_their_own_depth():
    """The network those in front of the last block, the decoder those behind the last norm."""
    tokenizer, prompts = Shown((5, 8), **CODES), told()
    module = lively(build(tokenizer, **SIDE, **TEXT, codebook_size=20, condition_num_classes=3)).float()
    settings, labels = MaskGenSettings(steps=3), torch.tensor([0, 1])

    def drawn(given):
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        module.sample(labels, generators, settings, given)
        return tokenizer.tokens.codes, tokenizer.seen

    codes, seen = drawn(prompts)
    assert torch.equal(seen, prompts.states)
    late = replace(prompts, states=-prompts.states, empty_states=-prompts.empty_states)
    assert torch.equal(drawn(late)[0], codes)
    assert not torch.equal(drawn(replace(prompts, inner=-prompts.inner))[0], codes)
    assert not torch.equal(drawn(replace(prompts, empty_inner=-prompts.empty_inner))[0], codes)
    text = Text(prompts.inner, prompts.pooled, torch.full((2,), 6.5))
    empty = Text(prompts.empty_inner, prompts.empty_pooled, torch.full((1,), 6.5))
    expected = sampled_codes(module, text, empty, settings.of_codes(), noise(1, 2), Watch())
    assert torch.equal(codes, expected)


def test_prompts_are_asked_for():
    module = build(Shown((5, 8), **CODES), **SIDE, **TEXT, codebook_size=20)
    generators = [torch.Generator(), torch.Generator()]
    with pytest.raises(MethodError, match=r"give sample\(\) prompts"):
        module.sample(torch.tensor([0, 1]), generators, MaskGenSettings())
    with pytest.raises(MethodError, match=r"prompts.states must be floats \(2, 5, 8\)"):
        module.sample(torch.tensor([0, 1]), generators, MaskGenSettings(), told(images=3))
    # A class has no meaning of its own here: any number will do.
    settings = MaskGenSettings(steps=1)
    assert module.sample(torch.tensor([-3, 5000]), generators, settings, told()).shape == (2, 3, 2, 2)


def test_tokenizers_that_are_told_otherwise():
    for text in ((5, 9), (6, 8)):
        with pytest.raises(MethodError, match="told texts of"):
            build(Shown(text, **CODES), **SIDE, **TEXT, codebook_size=20)
    tokenizer = Shown(None, **CODES)
    module = build(tokenizer, **SIDE, **TEXT, codebook_size=20)
    module.sample(torch.tensor([0, 1]), [torch.Generator(), torch.Generator()], MaskGenSettings(steps=1), told())
    assert tokenizer.seen is None
