"""TCTS and FAS: how many tokens are masked again, which ones, and by what the critic is trained."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from reference_impls.generators.maskgen import METHOD as MASKGEN
from reference_impls.generators.tcts_reading import METHOD, TctsSettings, build
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.maskgen import Text
from reference_impls.layers.noise import Draws
from reference_impls.layers.token_selection import (
    TokenSelector,
    image_attention,
    kept_places,
    masked_counts,
    purity,
    smooth_places,
)
from tokenmark.contracts import MethodError

LENGTH, CODES, STEPS = 12, 20, 5
GENERATOR = {
    "num_latent_tokens": LENGTH,
    "decoder_embed_dim": 16,
    "decoder_depth": 3,
    "decoder_num_heads": 2,
    "micro_condition_embed_dim": 4,
    "text_tokens": 3,
    "text_embed_dim": 8,
    "codebook_size": CODES,
    "condition_num_classes": 2,
}
SIZES = {"generator": GENERATOR, "selector_width": 16, "selector_depth": 2, "selector_heads": 2}
RULES = ("random", "random-revocable", "purity", "tcts")


@pytest.fixture(scope="module")
def module():
    """In float64, all gates open."""
    torch.manual_seed(0)
    built = build(None, **SIZES)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return built.double().eval()


def texts(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(count, *shape, 8, generator=generator, dtype=torch.float64) for shape in ((3,), ())]
    return Text(*made, torch.full((count,), 6.5, dtype=torch.float64))


EMPTY = texts(1, seed=9)


def noise(*seeds):
    return Draws([torch.Generator().manual_seed(seed) for seed in seeds], torch.device("cpu"))


def run(module, text, settings, *seeds):
    """The codes at the end, and where they were masked before every step, `(steps, B, N)`."""
    seen = []
    codes = module.generate(text, EMPTY, settings, noise(*seeds), Watch(), seen.append)
    return codes, torch.stack(seen) == CODES


def settings_of(rule, **more):
    return TctsSettings(rule=rule, steps=STEPS, cfg_scale=3.0, **more)


@given(st.integers(1, 300), st.integers(1, 60))
def test_schedule_falls_to_nothing(length, steps):
    counts = masked_counts(length, steps)
    assert len(counts) == steps
    assert counts[-1] == 0
    assert all(before > after or before == 1 for before, after in pairwise([length, *counts[:-1]]))


def test_schedule_is_the_arc_cosine():
    expected = [math.floor(128 * math.acos(step / 16) / (math.pi / 2)) for step in range(1, 16)]
    assert masked_counts(128, 16) == [*expected, 0]


@pytest.mark.parametrize(
    "settings",
    [*(settings_of(rule) for rule in RULES), settings_of("tcts", fas=True), settings_of("random-revocable", fas=True)],
    ids=[*RULES, "tcts-fas", "random-fas"],
)
def test_counts_follow_the_schedule_and_images_stand_alone(module, settings):
    text = texts(3)
    codes, masked = run(module, text, settings, 5, 6, 7)
    assert masked.sum(2).tolist() == [[count] * 3 for count in (LENGTH, *masked_counts(LENGTH, STEPS)[:-1])]
    assert 0 <= codes.min() <= codes.max() < CODES
    assert torch.equal(codes, run(module, text, settings, 5, 6, 7)[0])
    for index in range(3):
        alone = Text(*(part[index : index + 1] for part in text))
        assert torch.equal(run(module, alone, settings, 5 + index)[0], codes[index : index + 1])


@pytest.mark.parametrize("rule", RULES)
def test_only_revocable_rules_take_tokens_back(module, rule):
    _, masked = run(module, texts(4), settings_of(rule), 1, 2, 3, 4)
    taken_back = (~masked[:-1] & masked[1:]).any()
    assert bool(taken_back) == (rule in ("tcts", "random-revocable")) == settings_of(rule).revocable


def test_purity_keeps_the_surest():
    """Beside a search by hand."""
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kept = kept_places(purity(logits), 2)
    for row, probabilities in zip(kept, logits.softmax(-1), strict=True):
        order = sorted(range(5), key=lambda place: -probabilities[place].max().item())
        assert row.nonzero().flatten().tolist() == sorted(order[:2])
    assert kept_places(torch.zeros(1, 4), 3).tolist() == [[True, True, True, False]]


def test_the_critic_decides(module):
    """One that wants the last places only: they are kept first, whatever the generator thinks."""

    class Last(nn.Module):
        def forward(self, codes, _states):
            return torch.arange(codes.shape[1], dtype=torch.float64).expand(codes.shape)

    critic, module.selector = module.selector, Last()
    try:
        _, masked = run(module, texts(1), settings_of("tcts"), 3)
    finally:
        module.selector = critic
    for row, count in zip(masked[1:, 0], masked_counts(LENGTH, STEPS), strict=False):
        assert row.tolist() == [True] * count + [False] * (LENGTH - count)


def test_the_critic_reads_text_and_codes(module):
    codes, states = torch.arange(LENGTH).expand(2, LENGTH), texts(2).states
    scores = module.selector(codes, states)
    assert scores.shape == (2, LENGTH)
    assert not torch.allclose(scores[0], scores[1])
    assert not torch.allclose(scores, module.selector(codes.flip(1), states))
    text, other = texts(1), texts(1, seed=2)
    settings = settings_of("tcts")
    assert not torch.equal(run(module, text, settings, 1)[1], run(module, other, settings, 1)[1])


def test_loss_is_its_formula(module):
    generator = torch.Generator().manual_seed(0)
    codes, sampled = (torch.randint(CODES, (2, LENGTH), generator=generator) for _ in range(2))
    masked, states = torch.rand(2, LENGTH, generator=generator) < 0.5, texts(2).states
    mixed = torch.tensor(
        [
            [new if hidden else own for own, new, hidden in zip(*rows, strict=True)]
            for rows in zip(codes.tolist(), sampled.tolist(), masked.tolist(), strict=True)
        ]
    )
    keep = module.selector(mixed, states).sigmoid()
    total = 0.0
    for probability, hidden in zip(keep.flatten().tolist(), masked.flatten().tolist(), strict=True):
        total -= math.log(1.0 - probability if hidden else probability)
    assert module.selector.loss(codes, sampled, masked, states).item() == pytest.approx(total / (2 * LENGTH))


def test_attention_is_that_of_the_block(module):
    """What the block itself mixes of the image's values, where no text is looked at: the same rows by hand."""
    block, generator = module.generator.blocks[1], torch.Generator().manual_seed(0)
    x, told = (torch.randn(1, count, 16, generator=generator, dtype=torch.float64) for count in (4, 3))
    condition = torch.randn(1, 16, generator=generator, dtype=torch.float64)
    rows = image_attention(block, x, told, condition)[0]
    normed, context = block.norm1(x, condition)[0][0], block.norm1_context(told, condition)[0][0]
    found = torch.zeros(4, 4, dtype=torch.float64)
    keys = torch.cat([block.attn.to_k(normed), block.attn.add_k_proj(context)])
    for head in (slice(0, 8), slice(8, 16)):
        found += ((block.attn.to_q(normed)[:, head] @ keys[:, head].T) / math.sqrt(8)).softmax(-1)[:, :4] / 2
    torch.testing.assert_close(rows, found / found.sum(1, keepdim=True))


def test_the_widest_attention_is_smooth():
    rows = torch.tensor([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0], [0, 0, 0.9, 0.1]])
    assert smooth_places(rows[None], 0.5).tolist() == [[False, True, True, False]]
    assert smooth_places(rows[None], 0.3).tolist() == [[False, True, True, False]]
    assert smooth_places(rows[None], 0.1).tolist() == [[False, True, False, False]]


def test_groups_are_revised_at_intervals(module):
    """All of an image in the smooth group, or revised at every step: as if there were no groups. Else fewer."""
    text, plain = texts(6), settings_of("random-revocable")
    seeds = range(6)

    def taken_back(settings):
        masked = run(module, text, settings, *seeds)[1]
        return (~masked[:-1] & masked[1:]).sum((1, 2)).tolist()

    without = taken_back(plain)
    assert taken_back(settings_of("random-revocable", fas=True, fas_share=1.0)) == without
    assert taken_back(settings_of("random-revocable", fas=True, fas_interval=1)) == without
    # Behind steps 0 to 3; those of an odd number revise all, and at the first there is nothing to take back.
    rare = taken_back(settings_of("random-revocable", fas=True, fas_share=0.1))
    assert sum(rare[2::2]) < sum(without[2::2]) / 2
    assert rare[1] == without[1] > 0


def test_variants_are_those_of_the_masked_generator():
    for name, variant in METHOD.variants.items():
        assert variant.tokenizer == MASKGEN.variants[name].tokenizer
        assert variant.config["generator"] == MASKGEN.variants[name].config
        assert "no release" in variant.note
    with torch.device("meta"):
        built = METHOD.build(None, **METHOD.variants["vq-l"].config)
    assert built.generator.parameters_total == 604_311_552
    assert isinstance(built.selector, TokenSelector)


def test_bad_arguments_say_what_is_wrong():
    for changes in ({"rule": "greedy"}, {"selection_temperature": -1.0}, {"fas": True, "rule": "random"}):
        with pytest.raises(MethodError, match=next(iter(changes))):
            TctsSettings(**changes)
    latents = {name: size for name, size in GENERATOR.items() if name not in ("codebook_size", "condition_num_classes")}
    with pytest.raises(MethodError, match="must have a codebook_size"):
        build(None, **{**SIZES, "generator": latents})
    with pytest.raises(MethodError, match="multiple of selector_heads"):
        build(None, **{**SIZES, "selector_heads": 3})
