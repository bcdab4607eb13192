"""Halton-MaskGIT: its checkpoints, its schedule, and samples that do not depend on their batch."""

import math

import pytest
import torch

from reference_impls.generators.halton_maskgit import METHOD, build, release_arguments
from reference_impls.layers.halton_sampling import HaltonSettings, decided_after, halton_order
from tests import vector_case
from tokenmark import registry
from tokenmark.contracts import MethodError, TokenizerInfo, TokenizerMethod
from tokenmark.parity.compare import key_problems
from tokenmark.parity.vector import load

TINY = {
    "input_size": 4,
    "hidden_dim": 24,
    "codebook_size": 30,
    "depth": 2,
    "heads": 2,
    "mlp_dim": 96,
    "nclass": 10,
    "register": 1,
}


class Reader:
    """A tokenizer that shows its codes as grey squares, to see what a generator hands it."""

    def __init__(self, codes, tokens):
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


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    module = build(Reader(30, 16), **TINY).double().eval()
    with torch.no_grad():  # a block begins as the identity, and would not tell classes apart
        for name, parameter in module.named_parameters():
            if ".mlp.1." in name or name.startswith(("tok_emb", "cls_emb")):
                parameter.normal_(std=0.3)
        module.head.bias[30] = -30.0  # a tied head that has not learned answers the mask with the mask
    return module


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [
        ("tiny-256", 23_031_425),
        ("small-256", 69_344_769),
        ("base-256", 142_224_641),
        ("small-384", 69_508_609),
        ("base-384", 142_470_401),
        ("large-384", 479_984_641),
    ],
)
def test_released_checkpoint_fits(variant, parameters):
    vector = load(vector_case.VECTORS / f"halton-maskgit__{variant}.manifest.json")
    config = METHOD.variants[variant].config
    with torch.device("meta"):
        module = METHOD.build(None, **config)
    assert key_problems(module, vector, METHOD.layout) == []
    assert list(module.state_dict()) == list(vector.parameters)
    assert module.parameters_total == parameters
    assert config == release_arguments(vector.config)
    given = vector.config["sampling"]
    [preset] = [row.settings for row in METHOD.presets.values() if variant in row.variants]
    assert (preset.steps, preset.w) == (given["step"], given["w"])
    assert decided_after(preset, config["input_size"] ** 2) == given["tokens_decided_after_steps"]


def test_variants_name_tokenizers_that_read_their_codes():
    for variant in METHOD.variants.values():
        tokenizer, _, size = variant.tokenizer.partition("/")
        method = registry.get_as(TokenizerMethod, tokenizer)
        with torch.device("meta"):
            METHOD.build(method.build(**method.variants[size].config), **variant.config)


def test_keys_of_compiled_and_parallel_training_are_read():
    assert METHOD.layout.module_key("module._orig_mod.head.bias") == "head.bias"
    assert METHOD.layout.module_key("_orig_mod.tok_emb.weight") == "tok_emb.weight"


def test_the_order_reaches_every_cell_once_and_far_apart():
    for side in (4, 16, 24, 32):
        order = halton_order(side)
        assert len(order.unique(dim=0)) == side**2
        assert (order[1:] - order[:-1]).abs().amax(1).min() >= 1
    assert torch.equal(halton_order(4)[:2], torch.tensor([[2, 1], [1, 2]]))
    with pytest.raises(MethodError, match="do not reach every cell of a 300x300 grid"):
        halton_order(300)


@pytest.mark.parametrize(
    "settings",
    [
        HaltonSettings(steps=6, w=2.0, sm_temp_max=1.2, temp_warmup=1),
        HaltonSettings(steps=5, w=0.0, randomize=False, top_k=7),
        HaltonSettings(steps=6, w=3.0, sampler="confidence"),
    ],
    ids=["halton", "top-k", "confidence"],
)
def test_a_sample_does_not_depend_on_its_batch(tiny, settings):
    labels = torch.tensor([3, 1, 4])
    together = tiny.sample(labels, seeded(5, 6, 7), settings)
    alone = torch.cat([tiny.sample(labels[i : i + 1], seeded(5 + i), settings) for i in range(3)])
    assert torch.equal(together, alone)
    assert together.shape == (3, 3, 4, 4)
    assert not torch.equal(together, tiny.sample(labels, seeded(8, 9, 10), settings))


def test_classes_and_guidance_matter_and_none_is_none(tiny):
    settings = HaltonSettings(steps=4, w=1.0)
    labels = torch.tensor([3])
    image = tiny.sample(labels, seeded(1), settings)
    assert not torch.equal(image, tiny.sample(torch.tensor([4]), seeded(1), settings))
    assert not torch.equal(image, tiny.sample(labels, seeded(1), HaltonSettings(steps=4, w=6.0)))
    near = tiny.sample(labels, seeded(1), HaltonSettings(steps=4, w=1e-12))
    assert torch.equal(near, tiny.sample(labels, seeded(1), HaltonSettings(steps=4, w=0.0)))


def test_what_is_decided_by_halton_stays(tiny):
    seen = []
    settings = HaltonSettings(steps=5, w=0.0, randomize=False)
    tiny.generate(torch.tensor([0]), settings, Even(), Shown(), lambda _drawn, codes: seen.append(codes))
    order = halton_order(4)
    places = order[:, 0] * 4 + order[:, 1]
    for before, after, count in zip(seen[:-1], seen[1:], decided_after(settings, 16), strict=False):
        assert torch.equal(before[0, places[:count]], after[0, places[:count]])
        assert (before[0, places[count:]] == 30).all()


class Even:
    """Noise that is the same everywhere."""

    def uniform(self, name, step, *shape):
        return torch.full((1, *shape), 0.5, dtype=torch.float64)


class Shown:
    """A watch that does not look."""

    def see(self, numbers):
        return numbers


@pytest.mark.parametrize("steps", [1, 3, 20])
@pytest.mark.parametrize("sampler", ["halton", "confidence"])
def test_every_code_can_be_decoded(tiny, steps, sampler):
    tiny.sample(torch.tensor([0, 9]), seeded(1, 2), HaltonSettings(steps=steps, sampler=sampler))
    codes = tiny.tokenizer.seen.codes
    assert codes.shape == (2, 16)
    assert 0 <= codes.min() <= codes.max() < 30


def test_sizes_and_tokenizers_that_do_not_fit():
    with pytest.raises(MethodError, match="writes 16 tokens of 30 codes, the tokenizer reads 16 of"):
        build(Reader(31, 16), **TINY)
    with pytest.raises(MethodError, match="proj must be 1, got 2"):
        release_arguments({**TINY, "proj": 2})
