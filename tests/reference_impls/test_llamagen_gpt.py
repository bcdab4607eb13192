"""LlamaGen's generators: checkpoints fit, and the sampler keeps its promises; the numbers are test_parity's."""

import math

import pytest
import torch
from torch.nn import functional

from reference_impls.generators import llamagen_gpt
from reference_impls.generators.llamagen_gpt import METHOD, LlamaGenSettings
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.code_choice import among_likeliest, drawn_code, in_nucleus
from reference_impls.layers.noise import Draws
from reference_impls.tokenizers import llamagen_vq
from tests.vector_case import VECTORS
from tokenmark.contracts import MethodError, TokenizerInfo
from tokenmark.parity.compare import key_problems
from tokenmark.parity.vector import load

TINY = {"dim": 32, "n_layer": 2, "n_head": 2, "block_size": 16, "vocab_size": 24, "num_classes": 10, "multiple_of": 32}


class Reader:
    """A tokenizer that shows its codes as grey squares, to see what a generator hands it."""

    def __init__(self, codes=24, tokens=16):
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
        return tokens.codes.reshape(-1, 1, 4, 4).expand(-1, 3, 4, 4) / self.info.codebook_sizes[0]


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    module = METHOD.build(Reader(), **TINY).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():  # as drawn by default, classes would hardly matter
            if parameter.dim() > 1:
                parameter.normal_(std=0.5)
    return module


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def codes_of(module, labels, settings, *seeds):
    return module.generate(labels, settings, Draws(seeded(*seeds), torch.device("cpu")), Watch())


@pytest.mark.parametrize("variant", [name for name, variant in METHOD.variants.items() if variant.release])
def test_released_checkpoint_fits(variant):
    manifest = load(VECTORS / f"llamagen-gpt__{variant}.manifest.json")
    with torch.device("meta"):
        module = METHOD.build(None, **METHOD.variants[variant].config)
    assert key_problems(module, manifest, METHOD.layout) == []
    assert llamagen_gpt.release_arguments(manifest.config) == METHOD.variants[variant].config
    official, preset = manifest.config["sampling"], METHOD.presets[f"llamagen-{variant}-paper"].settings
    names = ("cfg_scale", "temperature", "top_k", "top_p")
    assert {name: getattr(preset, name) for name in names} == {name: official[name] for name in names}
    assert preset.image_size == (0 if official["image_size"] == 256 else official["image_size_eval"])


@pytest.mark.parametrize("variant", ["b-256", "b-384"])
def test_its_tokenizer_reads_what_it_writes(variant):
    method, _, size = METHOD.variants[variant].tokenizer.partition("/")
    assert method == "llamagen-vq"
    with torch.device("meta"):
        tokenizer = llamagen_vq.METHOD.build(**llamagen_vq.METHOD.variants[size].config)
        module = METHOD.build(tokenizer, **METHOD.variants[variant].config)
    assert module.tokenizer is tokenizer
    assert all("quantize" not in key for key in module.state_dict())


@pytest.mark.parametrize(
    "settings",
    [LlamaGenSettings(), LlamaGenSettings(cfg_interval=3, top_k=7, top_p=0.9), LlamaGenSettings(cfg_scale=1.0)],
)
def test_a_sample_does_not_depend_on_its_batch(tiny, settings):
    labels = torch.tensor([3, 1, 4])
    together = tiny.sample(labels, seeded(5, 6, 7), settings)
    alone = torch.cat([tiny.sample(labels[i : i + 1], seeded(5 + i), settings) for i in range(3)])
    assert torch.equal(together, alone)
    assert together.shape == (3, 3, 4, 4)
    assert not torch.equal(together, tiny.sample(labels, seeded(8, 9, 10), settings))


def test_no_labels_give_no_images(tiny):
    assert tiny.sample(torch.zeros(0, dtype=torch.int64), [], LlamaGenSettings(image_size=8)).shape[0] == 0


def test_kept_pairs_give_what_the_whole_sequence_gives(tiny):
    labels, codes = torch.tensor([0, 9]), []
    watch = Steps()
    written = tiny.write(labels, [1.0] * 16, lambda logits, _step: codes.append(logits.argmax(-1)) or codes[-1], watch)
    whole = tiny.logits(written[:, :-1], labels)
    torch.testing.assert_close(torch.stack(watch.seen, dim=1), whole)


class Steps(Watch):
    def __init__(self):
        super().__init__()
        self.seen = []

    def see(self, numbers):
        self.seen.append(numbers)
        return super().see(numbers)


@pytest.mark.parametrize("interval", [-1, 0, 5, 14, 15])
def test_guidance_of_whole_sequences_gives_the_same_codes(tiny, interval):
    labels = torch.tensor([0, 9])
    settings = LlamaGenSettings(cfg_scale=3.0, greedy=True, cfg_interval=interval)
    codes = codes_of(tiny, labels, settings, 1, 2)
    conditional, unconditional = tiny.logits(codes[:, :-1], labels), tiny.logits(codes[:, :-1], torch.full((2,), 10))
    guided = unconditional + 3.0 * (conditional - unconditional)
    if interval >= 0:
        guided[:, interval + 2 :] = conditional[:, interval + 2 :]
    assert torch.equal(guided.argmax(-1), codes)


def test_guided_as_unguided_up_to_scale_1(tiny):
    labels = torch.tensor([2, 7])
    unguided = codes_of(tiny, labels, LlamaGenSettings(cfg_scale=1.0), 1, 2)
    assert torch.equal(unguided, codes_of(tiny, labels, LlamaGenSettings(cfg_scale=0.5), 1, 2))
    assert not torch.equal(unguided, codes_of(tiny, labels, LlamaGenSettings(cfg_scale=3.0), 1, 2))


def test_greedy_draws_nothing_and_is_what_the_likeliest_code_is(tiny):
    labels = torch.tensor([2, 7])
    greedy = codes_of(tiny, labels, LlamaGenSettings(greedy=True), 1, 2)
    assert torch.equal(greedy, codes_of(tiny, labels, LlamaGenSettings(greedy=True), 3, 4))
    assert torch.equal(greedy, codes_of(tiny, labels, LlamaGenSettings(top_k=1), 3, 4))


def test_the_class_is_scored_0_by_every_token(tiny):
    table = tiny.rotation()
    assert table.dtype == torch.float64
    assert not table[0].any()
    torch.testing.assert_close(table[1:].square().sum(-1), torch.ones_like(table[1:, :, 0]))
    assert tiny.float().rotation().dtype == torch.float32
    tiny.double()


def test_images_are_resized_as_they_are_scored(tiny):
    labels = torch.tensor([3, 1])
    plain = tiny.sample(labels, seeded(5, 6), LlamaGenSettings())
    resized = tiny.sample(labels, seeded(5, 6), LlamaGenSettings(image_size=3))
    assert torch.equal(resized, functional.interpolate(plain, size=(3, 3), mode="bicubic").clamp(0, 1))
    assert torch.equal(plain, tiny.sample(labels, seeded(5, 6), LlamaGenSettings(image_size=4)))


def test_choice_of_codes():
    logits = torch.tensor([[1.0, 3.0, 2.0, 2.0], [0.0, 0.0, 0.0, 5.0]])
    assert among_likeliest(logits, 2).isfinite().tolist() == [[False, True, True, True], [True, True, True, True]]
    assert among_likeliest(logits, 1).isfinite().tolist() == [[False, True, False, False], [False, False, False, True]]
    assert torch.equal(among_likeliest(logits, 9), logits)
    shares = torch.tensor([[0.1, 0.5, 0.4], [0.25, 0.25, 0.5]]).log()
    assert in_nucleus(shares, 0.45).isfinite().tolist() == [[False, True, False], [False, False, True]]
    assert in_nucleus(shares, 0.6).isfinite().tolist() == [[False, True, True], [True, False, True]]
    assert torch.equal(in_nucleus(shares, 1.0), shares)
    uniform = torch.rand(20000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = drawn_code(shares[:1].expand(20000, 3), uniform)
    torch.testing.assert_close(drawn.bincount(minlength=3) / 20000, shares[0].exp(), atol=0.015, rtol=0)


def test_sizes_and_tokenizers_that_do_not_fit():
    with pytest.raises(MethodError, match="square"):
        METHOD.build(None, **{**TINY, "block_size": 15})
    with pytest.raises(MethodError, match="per head"):
        METHOD.build(None, **{**TINY, "n_head": 16})
    with pytest.raises(MethodError, match="c2i"):
        llamagen_gpt.release_arguments({"model_type": "t2i"})


def test_half_precision_and_autocast_run():
    module = METHOD.build(Reader(), **TINY)
    with torch.autocast("cpu", torch.bfloat16):
        assert module.sample(torch.tensor([1, 2]), seeded(1, 2), LlamaGenSettings()).shape == (2, 3, 4, 4)
    assert module.bfloat16().sample(torch.tensor([1]), seeded(1), LlamaGenSettings()).shape == (1, 3, 4, 4)
