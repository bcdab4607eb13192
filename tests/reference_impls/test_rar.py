"""RAR: its sizes hold the release's checkpoints, and its sampler guides and keeps what it must."""

import math

import pytest
import torch

from reference_impls.generators.rar import METHOD, RarSettings
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.noise import Draws, drawn_by_race
from tests import vector_case
from tokenmark import registry
from tokenmark.contracts import MethodError, TokenizerInfo, TokenizerMethod
from tokenmark.parity.compare import key_problems
from tokenmark.parity.vector import load

TINY = {
    "codebook_size": 32,
    "image_seq_len": 16,
    "condition_num_classes": 5,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
SETTINGS = RarSettings(cfg_scale=6.0, cfg_power=1.5, temperature=1.1)


class Reader:
    """A tokenizer that shows its codes as grey squares."""

    def __init__(self, codes=32, tokens=16):
        self.info = TokenizerInfo(
            image_size=4,
            max_tokens=tokens,
            codebook_sizes=(codes,),
            bits_per_token=math.log2(codes),
            variable_length=False,
            stochastic=False,
            parameters=0,
        )

    def decode(self, tokens):
        self.seen = tokens
        return tokens.codes[:, :16].reshape(-1, 1, 4, 4).expand(-1, 3, 4, 4) / self.info.codebook_sizes[0]


def drawn(module):
    """The module with weights that all have an effect: its conditions begin as zeros."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / max(1, parameter.shape[-1]) ** 0.5)
    return module


@pytest.fixture(scope="module")
def tiny():
    return drawn(METHOD.build(Reader(), **TINY).double().eval())


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize(
    ("variant", "parameters"), [("b", 260_923_648), ("l", 461_668_352), ("xl", 955_425_024), ("xxl", 1_498_520_704)]
)
def test_released_checkpoint_fits(variant, parameters):
    path = vector_case.VECTORS / f"rar__{variant}.manifest.json"
    with torch.device("meta"):
        module = METHOD.build(Reader(1024, 256), **METHOD.variants[variant].config)
    assert key_problems(module, load(path), METHOD.layout) == []
    assert module.parameters_total == parameters
    official, preset = load(path).config["sampling"], METHOD.presets[f"rar-{variant}-paper"].settings
    assert preset.cfg_scale == official["guidance_scale"]
    assert preset.cfg_power == official["guidance_scale_pow"]
    assert preset.temperature == official["randomize_temperature"]


def test_every_size_fits_the_tokenizer_that_it_names():
    for variant in METHOD.variants.values():
        name, _, size = variant.tokenizer.partition("/")
        config = registry.get_as(TokenizerMethod, name).variants[size].config
        assert config["codebook_size"] == variant.config["codebook_size"]
        cells = config["image_size"] // 2 ** (len(config["channel_mult"]) - 1)
        assert cells**2 == variant.config["image_seq_len"]


def test_kept_keys_and_values_give_what_the_whole_sequence_gives(tiny):
    labels, dropped = torch.tensor([2, 0]), torch.tensor([5, 5])
    codes = tiny.generate(labels, SETTINGS, Draws(seeded(1, 2), torch.device("cpu")), Watch())
    uniform = Draws(seeded(1, 2), torch.device("cpu"))
    with torch.no_grad():
        conditional, unconditional = tiny(codes, labels), tiny(codes, dropped)
    for step in range(16):
        scale = SETTINGS.guidance(step, 16)
        logits = unconditional[:, step] + scale * (conditional - unconditional)[:, step]
        expected = drawn_by_race((logits / 1.1).softmax(-1), uniform.uniform("tokens", step, 32).double())
        assert torch.equal(codes[:, step], expected)


def test_the_order_changes_logits_and_the_raster_is_an_order(tiny):
    codes, labels = torch.randint(32, (2, 16), generator=torch.Generator().manual_seed(0)), torch.tensor([1, 2])
    raster = torch.arange(16).expand(2, 16)
    with torch.no_grad():
        assert torch.equal(tiny(codes, labels), tiny(codes, labels, raster))
        assert not torch.allclose(tiny(codes, labels), tiny(codes, labels, raster.flip(1)))
        assert torch.allclose(tiny(codes[:, :3], labels), tiny(codes, labels)[:, :4])


def test_no_guidance_where_the_scale_says_so(tiny):
    labels = torch.tensor([3, 1])
    plain, one, never = (
        tiny.sample(labels, seeded(5, 6), settings)
        for settings in (
            RarSettings(cfg_scale=0.0),
            RarSettings(cfg_scale=1.0),
            RarSettings(cfg_scale=9.0, cfg_power=1e6),  # both halves are asked, but the scale stays 1
        )
    )
    assert torch.equal(plain, one)
    assert torch.equal(plain, never)
    assert not torch.equal(plain, tiny.sample(labels, seeded(5, 6), RarSettings(cfg_scale=9.0, cfg_power=0.0)))


def test_the_scale_grows_from_one_and_never_is_whole():
    settings = METHOD.presets["rar-b-paper"].settings
    scales = [settings.guidance(step, 256) for step in range(256)]
    assert scales[0] == 1.0
    assert scales == sorted(scales)
    assert 15.9 < scales[-1] < 16.0
    assert RarSettings(cfg_scale=4.0, cfg_power=0.0).guidance(0, 256) == pytest.approx(4.0)


def test_broken_weights_are_reported_with_the_step(tiny):
    module = drawn(METHOD.build(Reader(), **TINY).double().eval())
    with torch.no_grad():
        module.timesteps_embeddings[0, 5] = torch.nan
    with pytest.raises(MethodError, match="step 4 of the sampler gave NaN"):
        module.sample(torch.tensor([1]), seeded(1), SETTINGS)


def test_sizes_and_tokenizers_that_do_not_fit():
    with pytest.raises(MethodError, match="multiple of num_attention_heads"):
        METHOD.build(Reader(), **{**TINY, "num_attention_heads": 3})
