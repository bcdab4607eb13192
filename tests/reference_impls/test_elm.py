"""ELM's generators: checkpoints fit, and both samplers keep their promises; the numbers are test_parity's."""

import itertools
import math

import pytest
import torch

from reference_impls.generators import elm
from reference_impls.generators.elm import METHOD, ElmSettings
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.noise import Draws
from tests.vector_case import VECTORS
from tokenmark.contracts import MethodError, TokenizerInfo
from tokenmark.parity.compare import key_problems
from tokenmark.parity.vector import load

SIZES = {"dim": 32, "n_layer": 2, "n_head": 2, "block_size": 16, "num_classes": 10, "multiple_of": 32}
TINY = {
    "whole": {**SIZES, "kind": "ar", "token_each": 1, "code_dim": 6},
    "parts": {**SIZES, "kind": "ar", "token_each": 3, "code_dim": 3},
    "masked": {**SIZES, "kind": "mlm", "token_each": 1, "code_dim": 5},
}
GUIDED = ElmSettings(cfg_scale=3.0)


class Reader:
    """A tokenizer that shows its codes as grey squares, to see what a generator hands it."""

    def __init__(self, *codebook_sizes, tokens=16):
        self.info = TokenizerInfo(
            image_size=4,
            max_tokens=tokens,
            codebook_sizes=codebook_sizes,
            bits_per_token=sum(map(math.log2, codebook_sizes)),
            variable_length=False,
            stochastic=False,
            parameters=0,
        )

    def decode(self, tokens):
        self.seen = tokens
        codes = tokens.codes.double().reshape(-1, 1, 4, 4, len(self.info.codebook_sizes)).mean(-1)
        return codes.expand(-1, 3, 4, 4) / self.info.codebook_sizes[0]


def tiny_of(name):
    config = TINY[name]
    torch.manual_seed(0)
    reader = Reader(*[2 ** config["code_dim"]] * config["token_each"])
    module = METHOD.build(reader, **config).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():  # as drawn by default, classes would hardly matter
            if parameter.dim() > 1:
                parameter.normal_(std=0.5)
    return module


@pytest.fixture(scope="module", params=TINY)
def tiny(request):
    return tiny_of(request.param)


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def codes_of(module, labels, settings, *seeds):
    return module.generate(labels, settings, Draws(seeded(*seeds), torch.device("cpu")), Watch())


@pytest.mark.parametrize("variant", METHOD.variants)
def test_released_checkpoint_fits(variant):
    manifest = load(VECTORS / f"elm__{variant}.manifest.json")
    with torch.device("meta"):
        module = METHOD.build(None, **METHOD.variants[variant].config)
    assert key_problems(module, manifest, METHOD.layout) == []
    assert elm.release_arguments(manifest.config, variant.partition("-")[0]) == METHOD.variants[variant].config
    assert f"gpt/{manifest.notes.partition('gpt/')[2].partition(' ')[0]}" == METHOD.variants[variant].release.file
    assert METHOD.variants[variant].tokenizer is None
    assert "not implemented" in METHOD.variants[variant].note


def test_codes_are_what_the_tokenizer_reads(tiny):
    tiny.sample(torch.tensor([0, 9]), seeded(1, 2), GUIDED)
    codes = tiny.tokenizer.seen.codes
    assert codes.shape == ((2, 16) if tiny.token_each == 1 else (2, 16, tiny.token_each))
    assert codes.min() >= 0
    assert codes.max() < tiny.codebook_size
    assert tiny.tokenizer.seen.bits.tolist() == [16 * tiny.tokenizer.info.bits_per_token] * 2


@pytest.mark.parametrize("schedule", ["constant", "linear", "cos"])
def test_guided_with_scale_1_is_unguided(tiny, schedule):
    labels = torch.tensor([2, 7])
    unguided = codes_of(tiny, labels, ElmSettings(cfg_scale=1.0, cfg_schedule="constant"), 1, 2)
    assert torch.equal(unguided, codes_of(tiny, labels, ElmSettings(cfg_scale=1.0, cfg_schedule=schedule), 1, 2))
    assert not torch.equal(unguided, codes_of(tiny, labels, ElmSettings(cfg_scale=5.0, cfg_schedule=schedule), 1, 2))


def test_guidance_grows_to_its_scale():
    for schedule in ("linear", "cos"):
        scales = [ElmSettings(cfg_scale=4.0, cfg_schedule=schedule).scale(step, 8) for step in range(8)]
        assert scales == sorted(scales)
        assert 1.0 < scales[0] < scales[-1] == 4.0
    assert {ElmSettings(cfg_scale=4.0, cfg_schedule="constant").scale(step, 8) for step in range(8)} == {4.0}


def test_kept_pairs_give_what_the_whole_sequence_gives():
    module, labels = tiny_of("parts"), torch.tensor([0, 9])
    codes = codes_of(module, labels, ElmSettings(cfg_scale=3.0, top_k=1), 1, 2)
    conditional, unconditional = module.logits(codes[:, :-1], labels), module.logits(codes[:, :-1], labels * 0 + 10)
    scales = torch.tensor([ElmSettings(cfg_scale=3.0).scale(step, 16) for step in range(16)])[:, None, None]
    assert torch.equal((unconditional + scales * (conditional - unconditional)).argmax(-1), codes)


@pytest.mark.parametrize("steps", [1, 3, 16, 20])
def test_masked_codes_only_fall(steps):
    module, entering = tiny_of("masked"), []
    noise = Draws(seeded(1, 2), torch.device("cpu"))
    codes = module.generate(torch.tensor([0, 9]), ElmSettings(steps=steps), noise, Watch(), entering.append)
    masked = [(codes == module.codebook_size).sum(1) for codes in [*entering, codes]]
    assert len(entering) == steps
    assert (masked[0] == 16).all()
    assert (masked[-1] == 0).all()
    assert all((after <= before).all() for before, after in itertools.pairwise(masked))


def test_sizes_and_tokenizers_that_do_not_fit():
    config = TINY["parts"]
    for reader in (Reader(8, 8), Reader(512), Reader(8, 8, 8, tokens=9)):
        with pytest.raises(MethodError, match=r"writes 16 tokens of \(8, 8, 8\) codes"):
            METHOD.build(reader, **config)
    with pytest.raises(MethodError, match="one part"):
        METHOD.build(None, **{**TINY["masked"], "token_each": 2})
    with pytest.raises(MethodError, match="ar or mlm"):
        METHOD.build(None, **{**config, "kind": "diffusion"})
    with pytest.raises(MethodError, match="pos_type"):
        elm.release_arguments({"pos_type": "learned"}, "ar")


def test_settings_of_the_other_kind_are_refused():
    labels, masked, whole = torch.tensor([1]), tiny_of("masked"), tiny_of("whole")
    with pytest.raises(MethodError, match="top_k must be 0"):
        codes_of(masked, labels, ElmSettings(top_k=3), 1)
    with pytest.raises(MethodError, match="steps must be 0 or 16"):
        codes_of(whole, labels, ElmSettings(steps=3), 1)
    with pytest.raises(MethodError, match="temperature"):
        codes_of(whole, labels, ElmSettings(temperature=0.0), 1)
    assert codes_of(masked, labels, ElmSettings(temperature=0.0), 1).shape == (1, 16, 1)


def test_preset_is_the_scripts():
    preset = METHOD.presets["elm-ar-l-2-10-paper"]
    assert preset.variants == ("ar-l-2-10",)
    assert preset.settings == ElmSettings(cfg_scale=4.0, cfg_schedule="linear", temperature=1.0, top_k=1000)
    assert METHOD.variants["ar-l-2-10"].config["block_size"] == 256
