"""ENAT: its sizes hold the release's checkpoints; its sampler masks what its schedule says."""

import math

import pytest
import torch

from reference_impls.generators.enat import METHOD, SamplerSettings
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.noise import Draws
from tests import vector_case
from tokenmark import registry
from tokenmark.contracts import TokenizerInfo, TokenizerMethod
from tokenmark.parity.compare import key_problems
from tokenmark.parity.vector import load

TINY = {
    "input_size": 4,
    "hidden_size": 24,
    "num_heads": 2,
    "enc_dec": (2, 1),
    "codebook_size": 32,
    "num_classes": 5,
}
SETTINGS = SamplerSettings(steps=5, cfg_scale=3.0, mask_temp=1.5, samp_temp=2.0)


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


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    module = METHOD.build(Reader(), **TINY).double().eval()
    with torch.no_grad():  # conditions begin as zeros, which have no effect
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / max(1, parameter.shape[-1]) ** 0.5)
    return module


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize(("variant", "parameters"), [("l-256", 574_298_113), ("l-512", 575_084_545)])
def test_released_checkpoint_fits(variant, parameters):
    manifest = load(vector_case.VECTORS / f"enat__{variant}.manifest.json")
    config = METHOD.variants[variant].config
    with torch.device("meta"):
        module = METHOD.build(Reader(1024, config["input_size"] ** 2), **config)
    assert key_problems(module, manifest, METHOD.layout) == []
    assert module.parameters_total == parameters
    official = manifest.config["sampling"]
    assert METHOD.presets[f"enat-{variant}-paper"].settings == SamplerSettings(
        steps=official["gen_steps"],
        cfg_scale=official["cfg_scale"],
        mask_temp=official["mask_temp"],
        samp_temp=official["samp_temp"],
    )


def test_the_tokenizer_that_a_variant_names_reads_its_codes():
    variant = METHOD.variants["l-256"]
    name, size = variant.tokenizer.split("/")
    tokenizer = registry.get_as(TokenizerMethod, name)
    with torch.device("meta"):
        METHOD.build(tokenizer.build(**tokenizer.variants[size].config), **variant.config)


def test_every_step_masks_as_many_as_its_settings_say(tiny):
    entering = []
    labels = torch.tensor([0, 4])
    codes = tiny.generate(labels, SETTINGS, Draws(seeded(1, 2), labels.device), Watch(), entering.append)
    counts = SETTINGS.masked(16)
    assert counts[0] == 16
    for ids, count in zip(entering, counts, strict=True):
        assert ((ids == 32).sum(1) == count).all()
    for before, after in zip(entering, [*entering[1:], codes], strict=True):
        assert (before == after)[before != 32].all()  # what is known stays
    assert 0 <= codes.min() <= codes.max() < 32


def test_more_steps_than_tokens_leave_one_for_the_last_step(tiny):
    settings = SamplerSettings(steps=20, cfg_scale=1.0)
    assert settings.masked(16)[-1] == 1
    tiny.sample(torch.tensor([0, 4]), seeded(1, 2), settings)
    assert tiny.tokenizer.seen.codes.max() < 32


def test_earlier_features_stand_for_tokens_that_were_visible_then(tiny):
    labels, ids = torch.tensor([1]), torch.arange(16)[None] % 7
    first = torch.where(torch.arange(16) < 4, ids, 32)
    second = torch.where(torch.arange(16) < 8, ids, 32)
    stream = tiny.streamed(first, labels, 12)
    again = tiny.streamed(second, labels, 8, stream)
    assert again.visible == 8
    assert again.positions.sort().values.tolist() == [list(range(16))]
    assert torch.equal(again.features[:, :4], tiny.prev_proj(stream.features[:, :4]))
    assert not torch.allclose(again.features[:, 4:], tiny.streamed(second, labels, 8).features[:, 4:])


def test_unguided_is_guided_by_nothing(tiny):
    labels = torch.tensor([3, 1])
    plain = tiny.sample(labels, seeded(1, 2), SamplerSettings(cfg_scale=0.0))
    # A scale too small to move a logit by more than rounding goes through both halves all the same.
    assert torch.equal(plain, tiny.sample(labels, seeded(1, 2), SamplerSettings(cfg_scale=1e-14)))
    assert not torch.equal(plain, tiny.sample(labels, seeded(1, 2), SamplerSettings(cfg_scale=8.0)))


@pytest.mark.parametrize("preset", sorted(METHOD.presets))
def test_presets_run(tiny, preset):
    images = tiny.float().sample(torch.tensor([2]), seeded(3), METHOD.presets[preset].settings)
    assert torch.isfinite(images).all()
