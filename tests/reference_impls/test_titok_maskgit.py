"""TiTok's generators give what the release gives: logits, and every step of its sampler."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reference_impls.generators.titok_maskgit import METHOD, SamplerSettings, build, release_arguments
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.remasking import least_sure
from reference_impls.parity._recorded import Recorded
from reference_impls.parity._taps import tapped
from reference_impls.tokenizers import titok
from tests import vector_case
from tokenmark import registry
from tokenmark.contracts import MethodError, TokenizerInfo, TokenizerMethod


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


def built(name):
    vector = vector_case.load(name)
    arguments = release_arguments(vector["config"])
    module = build(Reader(arguments["codebook_size"], arguments["image_seq_len"]), **arguments)
    vector_case.check_keys(module, vector)
    return vector, vector_case.fill(module, vector), vector_case.inputs(vector)


def settings_in_notes(vector):
    """The sampler settings that a vector's notes give as JSON, by name of run."""
    notes = vector["notes"]
    found, _ = json.JSONDecoder().raw_decode(notes[notes.index("{") :])
    return found


def check_logits(vector, module, inputs, stages):
    dropped = torch.full_like(inputs["labels"], module.classes)
    with tapped(stages) as seen, torch.no_grad():
        logits = module.logits(inputs["tokens"], inputs["labels"])
    with torch.no_grad():
        unconditional = module.logits(inputs["tokens"], dropped)
    vector_case.check(vector, logits=logits, logits_unconditional=unconditional, **seen)


def test_imagebert_logits():
    vector, module, inputs = built("titok-maskgit__imagebert-small")
    layers = module.model.encoder["layer"]
    stages = {"embeddings": module.model.embeddings, "after_layer_0": layers[0], "after_layer_2": layers[2]}
    check_logits(vector, module, inputs, stages)


def test_uvit_logits():
    vector, module, inputs = built("titok-maskgit__uvit-small")
    stages = {"after_in_blocks": module.in_blocks[-1], "after_mid_block": module.mid_block}
    stages |= {"embeddings": module.embeddings, "after_out_block_0": module.out_blocks[0]}
    check_logits(vector, module, inputs, stages)


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("imagebert-small", "linear"),
        ("imagebert-small", "constant"),
        ("uvit-small", "power_cosine"),
        ("uvit-small", "linear"),
    ],
)
def test_every_sampling_step(name, run):
    vector, module, inputs = built(f"titok-maskgit__{name}")
    given = settings_in_notes(vector)[run]
    tokens, confidence = inputs[f"noise_token_{run}"], inputs[f"noise_confidence_{run}"]
    settings = SamplerSettings(
        steps=len(tokens),
        temperature=given["randomize_temperature"],
        cfg_scale=given["guidance_scale"],
        cfg_schedule=given["guidance_decay"],
        softmax_annealing=given["softmax_temperature_annealing"],
    )
    entering, noise = [], Recorded({"tokens": tokens, "confidence": confidence})
    codes = module.generate(inputs["labels"], settings, noise, Watch(), entering.append)
    assert (entering[0] == module.codebook_size).all()
    steps = torch.stack(entering[1:])
    vector_case.check(vector, **{f"sampled_tokens_{run}": codes, f"ids_entering_steps_{run}": steps})


@pytest.mark.parametrize(("variant", "parameters"), [("l32", 177_202_432), ("b64", 177_227_008), ("s128", 294_990_848)])
def test_released_checkpoint_fits(variant, parameters):
    config = METHOD.variants[variant].config
    manifest = vector_case.load(f"titok-maskgit__{variant}.manifest")
    with torch.device("meta"):
        module = METHOD.build(Reader(4096, config["image_seq_len"]), **config)
    vector_case.check_keys(module, manifest)
    assert module.parameters_total == parameters
    official, preset = manifest["config"]["sampling"], METHOD.presets[f"titok-{variant}-paper"]
    assert preset.variants == (variant,)
    assert preset.settings == SamplerSettings(
        steps=official["num_sample_steps"],
        temperature=official["randomize_temperature"],
        cfg_scale=official["guidance_scale"],
        cfg_schedule=official["guidance_decay"],
        softmax_annealing=official["softmax_temperature_annealing"],
    )


@pytest.mark.parametrize(("size", "scale", "temperature"), [("s", 12.5, 3.0), ("b", 8.5, 2.5), ("l", 5.5, 3.0)])
def test_generators_over_one_d_piece(size, scale, temperature):
    variant = METHOD.variants[f"one-d-piece-{size}"]
    name, _, sized = variant.tokenizer.partition("/")
    with torch.device("meta"):
        tokenizer = registry.get_as(TokenizerMethod, name)
        module = METHOD.build(tokenizer.build(**tokenizer.variants[sized].config), **variant.config)
    assert module.image_seq_len == 256
    # TiTok's network with as many more positions: their rows are all that L-32 has fewer of.
    assert module.parameters_total == 177_202_432 + (256 - 32) * 768
    [preset] = [preset for preset in METHOD.presets.values() if f"one-d-piece-{size}" in preset.variants]
    assert preset.settings == SamplerSettings(
        steps=16, temperature=temperature, cfg_scale=scale, cfg_schedule="power-cosine"
    )


@pytest.fixture(scope="module")
def mini():
    torch.manual_seed(0)
    return METHOD.build(Reader(256, 16), **METHOD.variants["mini-16"].config).double().eval()


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_ties_in_one_image_do_not_change_another():
    confidence = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0]]).repeat(1, 4).double()
    masked = torch.ones(2, 16, dtype=torch.bool)
    both = least_sure(confidence, masked, 9)
    assert both.sum(1).tolist() == [16, 12]  # all that tie with the last one, and so 3 times 4
    assert torch.equal(both[1:], least_sure(confidence[1:], masked[1:], 9))


@limits(max_examples=40)
@given(
    confidence=arrays(np.float64, (2, 9), elements=st.floats(-50, 50), unique=True),
    hidden=st.lists(st.integers(0, 8), min_size=1, unique=True),
    wanted=st.integers(-1, 12),
)
def test_the_least_sure_of_the_masked_are_masked_again(confidence, hidden, wanted):
    masked = torch.zeros(2, 9, dtype=torch.bool)
    masked[:, hidden] = True
    again = least_sure(torch.from_numpy(confidence), masked, wanted)
    count = min(max(wanted, 1), max(len(hidden) - 1, 1))
    for row, chosen in zip(confidence, again, strict=True):
        assert set(chosen.nonzero()[:, 0].tolist()) == set(sorted(hidden, key=lambda place: row[place])[:count])


def test_all_tokens_are_known_after_the_last_step(mini):
    for steps in (1, 3, 20):
        settings = SamplerSettings(steps=steps, temperature=1.0, cfg_scale=0.0)
        mini.sample(torch.tensor([0, 9]), seeded(1, 2), settings)
        codes = mini.tokenizer.seen.codes
        assert codes.max() < 256
        assert codes.min() >= 0


def test_sizes_and_tokenizers_that_do_not_fit():
    with pytest.raises(MethodError, match="model_type must be ViT or UViT"):
        METHOD.build(None, **{**METHOD.variants["mini-16"].config, "model_type": "Mamba"})
    with pytest.raises(MethodError, match="multiple of num_attention_heads"):
        METHOD.build(None, **{**METHOD.variants["mini-16"].config, "num_attention_heads": 5})


def test_loss_starts_at_chance_and_falls():
    torch.manual_seed(0)
    module = METHOD.build(Reader(256, 16), **METHOD.variants["mini-16"].config)
    codes, labels = torch.randint(0, 256, (8, 16)), torch.arange(8)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = module.loss(codes, labels, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(256), rel=0.05)
    assert losses[-1] < 0.8 * losses[0]


def test_mini_writes_images_through_the_tokenizer_that_its_variant_names():
    torch.manual_seed(0)
    variant = METHOD.variants["mini-16"]
    assert variant.tokenizer == "titok/mini-16"
    tokenizer = titok.METHOD.build(**titok.METHOD.variants["mini-16"].config).eval()
    module = METHOD.build(tokenizer, **variant.config).eval()
    images = module.sample(torch.tensor([0, 9]), seeded(1, 2), METHOD.presets["mini"].settings)
    assert images.shape == (2, 3, 32, 32)
    assert 0 <= images.min() <= images.max() <= 1
    assert module.parameters_total * 4 < 2_000_000
