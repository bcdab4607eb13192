"""MaskBit's generator: what its network sees and says, and its sampler, against closed forms and written-out loops."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from torch.nn import functional

from reference_impls.generators.maskbit_bert import METHOD, MaskBitSettings, build, release_arguments
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.maskbit_transformer import codes_of_groups, groups_of_codes
from reference_impls.layers.noise import Draws
from reference_impls.parity._recorded import Recorded
from tests.reference_impls.small_generators import SMALL, tokenizer_of, with_lively_weights
from tokenmark import registry
from tokenmark.contracts import MethodError, TokenizerMethod

TINY = SMALL["maskbit-bert"].config
LENGTH, GROUPS, VALUES, STEPS = 16, 2, 8, 5
MASK = VALUES


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return with_lively_weights(build(tokenizer_of("maskbit-bert").double(), **TINY).eval()).double()


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def generated(module, labels, seeds, settings, entering=None):
    place = torch.device("cpu")
    return module.generate(torch.tensor(labels), settings, Draws(seeded(*seeds), place), Watch(), entering)


@limits(max_examples=50)
@given(groups=st.sampled_from([1, 2, 3]), data=st.data())
def test_codes_and_groups_of_bits_round_trip(groups, data):
    bits = groups * data.draw(st.integers(1, 9))
    codes = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=5))
    values = groups_of_codes(torch.tensor(codes), bits, groups)
    each = bits // groups
    for code, row in zip(codes, values.tolist(), strict=True):
        # The first group holds the last binary digits.
        digits = f"{code:0{bits}b}"
        assert row == [int(digits[bits - (i + 1) * each : bits - i * each], 2) for i in range(groups)]
    assert codes_of_groups(values, bits).tolist() == codes


def test_the_input_is_the_tokenizers_latent_of_signs(tiny):
    """Channel by channel what its decoder reads: generator and tokenizer share one representation."""
    codes = torch.arange(64)[None, :LENGTH] * 4 % 63
    signs = tiny.signs(groups_of_codes(codes, 6, GROUPS))
    assert torch.equal(signs, tiny.tokenizer.quantize.lookup(codes).double())
    assert set(signs.unique().tolist()) == {-1.0, 1.0}


def test_a_masked_group_is_zeros_and_the_other_stays():
    module = build(None, **TINY)
    known = torch.tensor([[[5, 2], [MASK, 2], [5, MASK], [MASK, MASK]]])
    assert module.signs(known)[0].tolist() == [
        [1, -1, 1, -1, 1, -1],
        [0, 0, 0, -1, 1, -1],
        [1, -1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def test_every_known_group_and_the_class_reach_every_logit(tiny):
    """And groups of a token are predicted apart: the first half of a row of the head is the first group's."""
    groups, classes = torch.full((1, LENGTH, GROUPS), MASK), torch.tensor([3])
    with torch.no_grad():
        blind = tiny(groups, classes)
        assert blind.shape == (1, LENGTH, GROUPS, VALUES)
        assert not torch.isclose(blind, tiny(groups, torch.tensor([4]))).any()
        groups[0, 7, 1] = 6
        assert not torch.isclose(blind, tiny(groups, classes)).any()
        hidden = tiny.last_layer(stream(tiny, groups, classes))
        first, second = (hidden @ half.T for half in tiny.prediction_layer.weight.split(VALUES))
        expected = torch.stack([first, second], dim=2) + tiny.prediction_layer.bias.view(GROUPS, VALUES)
        torch.testing.assert_close(tiny(groups, classes), expected)


def stream(module, groups, classes):
    """What leaves the last block for the image's tokens, by torch's own encoder layers on the same weights."""
    rows = torch.cat([module.input_proj(module.signs(groups)), module.class_emb(classes)[:, None]], dim=1)
    norm = module.first_layer[0]
    x = functional.layer_norm(rows + module.pos_emb, (16,), norm.weight, norm.bias, eps=1e-12)
    for block in module.transformer["layers"]:
        names = {"0.mha.": "self_attn.", "1.net.0.": "linear1.", "1.net.2.": "linear2.", "0.norm.": "norm1."}
        layer = torch.nn.TransformerEncoderLayer(
            16, 2, 32, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
        )
        state = {}
        for key, weight in block.state_dict().items():
            [prefix] = [old for old in (*names, "1.norm.") if key.startswith(old)]
            state[names.get(prefix, "norm2.") + key.removeprefix(prefix)] = weight
        layer.double().load_state_dict(state)
        x = layer(x)
    return x[:, :-1]


@pytest.mark.parametrize("bits", [10, 12, 14, 16, 18])
def test_sizes_are_the_printed_ones(bits):
    variant = METHOD.variants[f"{bits}bit"]
    tokenizer, _, size = variant.tokenizer.partition("/")
    method = registry.get_as(TokenizerMethod, tokenizer)
    with torch.device("meta"):
        module = METHOD.build(method.build(**method.variants[size].config), **variant.config)
    width, values = 1024, 2 ** (bits // 2)
    block = 12 * width**2 + 13 * width  # attention and MLP with their biases, and two norms
    ends = (1001 + bits + 1 + 257) * width + 2 * width + width**2 + 3 * width + 2 * values * (width + 1)
    assert module.parameters_total == 24 * block + ends
    assert round(module.parameters_total / 1e6) == (306 if bits == 18 else 305)  # the paper prints 305M for all
    assert len(module.state_dict()) == 24 * 12 + 2 + 4 + 4 + 2


def test_keys_are_the_releases(tiny):
    block = "transformer.layers.0."
    keys = [
        *(f"{block}0.mha.{name}" for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")),
        *(f"{block}{name}.weight" for name in ("0.norm", "1.net.0", "1.net.2", "1.norm")),
        *(f"{name}.weight" for name in ("class_emb", "input_proj", "first_layer.0", "last_layer.0", "last_layer.2")),
        *("pos_emb", "prediction_layer.weight"),
    ]
    assert set(keys) <= set(tiny.state_dict())
    assert METHOD.layout.module_key("token_emb.weight") == "input_proj.weight"
    assert METHOD.layout.module_key("class_emb.weight") == "class_emb.weight"


def test_guidance_grows_from_0_as_a_power_of_a_cosine():
    settings = MaskBitSettings(steps=64, cfg_scale=6.0, cfg_power=1.0)
    assert [settings.guidance_weight(step) for step in (0, 16, 32)] == pytest.approx(
        [0.0, 6.0 * (1 - math.sqrt(0.5)) / 2, 3.0], abs=1e-12
    )
    assert settings.guidance_weight(63) < 6.0
    late = MaskBitSettings(steps=64, cfg_scale=6.0, cfg_power=3.0)
    assert late.guidance_weight(32) == pytest.approx(6.0 * math.sin(math.pi / 16) ** 2)
    assert MaskBitSettings(cfg_scale=6.0, cfg_power=0.0).guidance_weight(0) == 6.0


@pytest.mark.parametrize("steps", [1, 3, 16, 64])
def test_as_many_groups_are_masked_as_the_schedule_says(tiny, steps):
    seen, settings = [], MaskBitSettings(steps=steps, temperature=1.0)
    groups = generated(tiny, [0, 4], [1, 2], settings, seen.append)
    total, before = LENGTH * GROUPS, LENGTH * GROUPS
    assert len(seen) == steps
    for step, entering in enumerate(seen):
        if step:
            wanted = math.floor(total * 2 / math.pi * math.acos(step / steps))
            before = max(1, min(wanted, before - 1))
        assert (entering == MASK).sum((1, 2)).tolist() == [before, before]
    for entering, after in zip(seen, [*seen[1:], groups], strict=True):
        known = entering != MASK
        assert torch.equal(entering[known], after[known])  # what was kept stays
    assert 0 <= groups.min() <= groups.max() < VALUES


def test_the_whole_image_is_masked_by_the_schedule_at_the_start_and_a_group_on_its_own():
    settings = MaskBitSettings(steps=64)
    counts = [settings.masked_after(step, 512) for step in range(64)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == math.floor(512 * (1 - math.asin(1 / 64) * 2 / math.pi)) == 506
    assert counts[31] == 341  # acos(1/2) is a third of pi
    assert counts[-1] == 0


def sampled_slowly(module, label, settings, tokens, confidence):
    """Groups `(L, G)` of one image: the paper's loop, a group at a time, noise as it is given."""
    state = {(place, group): MASK for place in range(LENGTH) for group in range(GROUPS)}
    for step in range(settings.steps):
        groups = torch.tensor([[state[place, group] for group in range(GROUPS)] for place in range(LENGTH)])[None]
        with torch.no_grad():
            told, untold = (module(groups, torch.tensor([name]))[0] for name in (label, module.classes))
        progress = (step + 1) / settings.steps
        weight = settings.cfg_scale * 0.5 * (1 - math.cos(math.pi * (step / settings.steps) ** settings.cfg_power))
        sure = {}
        for (place, group), known in state.items():
            if known != MASK:
                continue
            mixed = told[place, group] * (1 + weight) - untold[place, group] * weight
            chances = (mixed / settings.softmax_temperature).softmax(0)
            clocks = -tokens[step][0, place, group].log() / chances
            state[place, group] = int(clocks.argmin())
            if step + 1 < settings.steps:
                gumbel = -math.log(-math.log(confidence[step][0, place, group]))
                drawn = math.log(chances[state[place, group]])
                sure[place, group] = drawn + settings.temperature * (1 - progress) * gumbel
        wanted = math.floor(len(state) * math.acos(progress) / (math.pi / 2))
        for key in sorted(sure, key=sure.get)[: max(1, min(wanted, len(sure) - 1))]:
            state[key] = MASK
    return [[state[place, group] for group in range(GROUPS)] for place in range(LENGTH)]


@pytest.mark.parametrize(
    "settings",
    [
        MaskBitSettings(steps=STEPS, temperature=2.0, cfg_scale=4.0, cfg_power=1.5),
        MaskBitSettings(steps=STEPS, temperature=0.0, cfg_scale=0.0),
        MaskBitSettings(steps=STEPS, temperature=8.0, cfg_scale=2.0, cfg_power=0.0, softmax_temperature=0.7),
    ],
    ids=["guided", "unguided", "wholly guided"],
)
def test_every_step_against_the_loop_written_out(tiny, settings):
    generator = torch.Generator().manual_seed(3)
    shapes = {"tokens": (LENGTH, GROUPS, VALUES), "confidence": (LENGTH, GROUPS)}
    noise = {
        name: torch.rand(STEPS, 1, *shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()
    }
    groups = tiny.generate(torch.tensor([2]), settings, Recorded(noise), Watch())
    assert groups[0].tolist() == sampled_slowly(tiny, 2, settings, **noise)


def test_values_are_drawn_as_often_as_they_are_likely(tiny):
    """One step: every group on its own, from the network's blind and unguided prediction."""
    settings, images = MaskBitSettings(steps=1), 600
    groups = generated(tiny, [1] * images, range(images), settings)
    with torch.no_grad():
        logits = tiny(torch.full((1, LENGTH, GROUPS), MASK), torch.tensor([1]))[0]
    chances = logits.softmax(-1)
    found = functional.one_hot(groups, VALUES).double().mean(0)
    spread = (chances * (1 - chances) / images).sqrt()
    assert ((found - chances).abs() < 5 * spread + 1e-9).all()
    assert (found - chances).abs().mean() < 1.5 * spread.mean()


def test_a_sample_does_not_depend_on_its_batch(tiny):
    settings = MaskBitSettings(steps=4, temperature=3.0, cfg_scale=3.0)
    labels = torch.tensor([3, 1, 4])
    together = tiny.sample(labels, seeded(5, 6, 7), settings)
    alone = torch.cat([tiny.sample(labels[i : i + 1], seeded(5 + i), settings) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)


def test_the_image_is_the_tokenizers_of_the_codes_that_were_drawn(tiny, monkeypatch):
    handed, decode = [], tiny.tokenizer.decode
    monkeypatch.setattr(tiny.tokenizer, "decode", lambda tokens: handed.append(tokens) or decode(tokens))
    settings = MaskBitSettings(steps=3)
    tiny.sample(torch.tensor([3]), seeded(5), settings)
    groups = generated(tiny, [3], [5], settings)
    assert torch.equal(handed[0].codes, groups[..., 0] + 8 * groups[..., 1])
    assert handed[0].bits.tolist() == [LENGTH * 6]


def test_presets_are_the_configurations_of_the_table():
    rows = {name.removeprefix("maskbit-"): (row.settings, row.printed[-4:]) for name, row in METHOD.presets.items()}
    # cfg_scale, temperature, cfg_power, steps, gFID
    assert {
        name: (found.cfg_scale, found.temperature, found.cfg_power, found.steps, gfid)
        for name, (found, gfid) in rows.items()
    } == {
        "10bit-paper": (6.4, 10.5, 2.5, 64, "1.68"),
        "12bit-paper": (7.1, 8.2, 3.0, 64, "1.65"),
        "14bit-paper": (7.1, 7.8, 3.0, 64, "1.62"),
        "14bit-paper-128-steps": (7.1, 9.0, 3.0, 128, "1.56"),
        "14bit-paper-256-steps": (5.8, 10.3, 3.0, 256, "1.52"),
        "16bit-paper": (6.5, 7.5, 2.5, 64, "1.64"),
        "18bit-paper": (5.7, 8.5, 2.5, 64, "1.67"),
    }
    assert {found.softmax_temperature for found, _ in rows.values()} == {1.0}


NETWORK = {"model_cls": "lfq_bert", "hidden_dim": 1024, "depth": 24, "heads": 16, "mlp_dim": 4096}


def test_the_releases_configuration_is_read():
    network = {**NETWORK, "codebook_splits": 2, "use_prenorm": False}
    config = {
        "model": {"vq_model": {"token_size": 14, "num_resolutions": 5}, "mlm_model": network},
        "dataset": {"preprocessing": {"resolution": 256}},
    }
    assert release_arguments(config) == METHOD.variants["14bit"].config
    for name, value in {"model_cls": "bert", "use_prenorm": True}.items():
        other = {**config, "model": {**config["model"], "mlm_model": {**network, name: value}}}
        with pytest.raises(MethodError, match=name):
            release_arguments(other)


def test_sizes_that_do_not_fit():
    with pytest.raises(MethodError, match="token_size must be a multiple of codebook_splits, got 7"):
        build(None, **{**TINY, "token_size": 7})
    with pytest.raises(MethodError, match="hidden_dim must be a multiple of heads, got 15"):
        build(None, **{**TINY, "hidden_dim": 15})
