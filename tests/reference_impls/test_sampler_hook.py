"""The hook in a DiT: the reduced generator beside the unreduced one and plain loops, its batches, and its cost."""

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from reference_impls.generators import dit, sparsedit
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.dit_blocks import modulate
from reference_impls.layers.latent_diffusion import DiffusionSettings
from reference_impls.layers.noise import Draws
from reference_impls.layers.sampler_cost import call_macs
from reference_impls.layers.sampler_hook import STATE, Place, attach, begin
from reference_impls.layers.sampler_merging import SamplerHook
from tests.reference_impls.latent_generators import seeded, small_vae, with_drawn_weights
from tests.reference_impls.test_tomesd import oracle
from tokenmark import registry
from tokenmark.contracts import (
    BudgetError,
    DiffusionReducerMethod,
    MethodError,
    ReducerMethod,
    UnsupportedBackboneError,
)
from tokenmark.errors import TokenmarkError
from tokenmark.measures.cost import counted_macs

SMALL = {"input_size": 8, "hidden_size": 32, "depth": 6, "num_heads": 2, "num_classes": 10}
BRIEF = DiffusionSettings(steps=4, cfg_scale=2.0)
FEW = {
    "tomesd": {"ratio": 0.5},
    "atc": {"ratio": 0.5},
    "importance-merging": {"ratio": 0.5, "important_from": 1, "merge_from": 1},
    "cat-pruning-reading": {"whole_steps": 2, "clusters": (2, 2)},
    "flexdit-schedule-reading": {"skip": (1, 1)},
}
"""Settings that reduce the small network."""
NOTHING = {
    "tomesd": {"ratio": 0.0},
    "atc": {"ratio": 0.0},
    "importance-merging": {"ratio": 0.0},
    "cat-pruning-reading": {"keep_rate": 1.0},
    "flexdit-schedule-reading": {"first": 0.0, "last": 0.0},
}


def reduced(name, network, **settings):
    method = registry.in_sampler(name)
    return method.reduce(network, method.settings(**settings))


@pytest.fixture(scope="module")
def small():
    return with_drawn_weights(dit.METHOD.build(small_vae(), **SMALL))


def latents(generator, seeds=(5, 6, 7), settings=BRIEF, labels=(3, 1, 4)):
    """What the sampler makes, before the tokenizer."""
    state = getattr(generator, STATE, None)
    if state:
        begin(generator, seeds, settings.steps)
    noise = Draws(seeded(*seeds), torch.device("cpu"))
    return generator.generate(torch.tensor(labels), settings, noise, Watch())


def test_every_reducer_of_samplers_is_held_to_these_tests():
    reducers = [name for name, place in registry.locations().items() if ".reducers." in place.module]
    methods = {name: registry.get(name) for name in reducers}
    in_samplers = {
        name
        for name, method in methods.items()
        if isinstance(method, DiffusionReducerMethod) or (isinstance(method, ReducerMethod) and method.in_sampler)
    }
    assert in_samplers == FEW.keys() == NOTHING.keys()
    assert all(registry.in_sampler(name).id == name for name in in_samplers)
    with pytest.raises(TokenmarkError, match="'topk' reduces the tokens of classifiers"):
        registry.in_sampler("topk")
    assert registry.kind_of(registry.get("importance-merging")) == "diffusion reducer"


@pytest.mark.parametrize("name", FEW)
def test_nothing_to_reduce_is_the_network_itself(small, name):
    torch.testing.assert_close(latents(reduced(name, small, **NOTHING[name])), latents(small), rtol=0, atol=0)


@pytest.mark.parametrize("name", FEW)
def test_the_given_network_is_left_as_it_was_and_its_weights_are_shared(small, name):
    before, keys = latents(small), list(small.state_dict())
    copied = reduced(name, small, **FEW[name])
    assert not torch.allclose(latents(copied), before, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(latents(small), before, rtol=0, atol=0)
    assert list(copied.state_dict()) == keys == list(small.state_dict())
    assert {each.data_ptr() for each in copied.parameters()} == {each.data_ptr() for each in small.parameters()}
    assert copied.tokenizer is small.tokenizer
    assert copied.parameters_total == small.parameters_total
    with pytest.raises(MethodError, match="reduced already"):
        reduced(name, copied)


@pytest.mark.parametrize("name", FEW)
def test_an_image_depends_neither_on_its_batch_nor_on_earlier_runs(small, name):
    copied, labels = reduced(name, small, **FEW[name]), torch.tensor([3, 1, 4])
    together = copied.sample(labels, seeded(5, 6, 7), BRIEF)
    alone = [copied.sample(labels[i : i + 1], seeded(5 + i), BRIEF) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-9)
    torch.testing.assert_close(together, copied.sample(labels, seeded(5, 6, 7), BRIEF), rtol=0, atol=0)
    assert copied.sample(labels[:0], [], BRIEF).shape == (0, 3, 32, 32)


@pytest.mark.parametrize("name", FEW)
def test_as_many_tokens_run_as_is_told(small, name):
    copied = reduced(name, small, **FEW[name])
    hook, counts = getattr(copied, STATE).hook, []
    for block in copied.blocks:
        block.attn.proj.register_forward_hook(lambda _, __, out: counts.append(out.shape[1]))
        block.mlp.fc1.register_forward_hook(lambda _, __, out: counts.append(out.shape[1]))
    latents(copied)
    told = []
    for step in range(BRIEF.steps):
        for block in range(SMALL["depth"]):
            seen = hook.seen(_place(block), step, BRIEF.steps)
            told += [seen.computed, seen.computed if "mlp" in hook.parts else 16]
    assert counts == told
    assert min(told) < 16


def _place(block):
    return Place(block, SMALL["depth"], (4, 4), 1, SMALL["hidden_size"])


@pytest.mark.parametrize("name", [None, *FEW])
def test_the_cost_is_what_torch_counts(small, name):
    copied = reduced(name, small, **FEW[name]) if name else small
    x, labels = torch.randn(2, 4, 8, 8).double(), torch.tensor([1, 10])
    if name:
        begin(copied, [1], BRIEF.steps)
    with torch.no_grad():
        for step in range(BRIEF.steps):
            times = torch.full((2,), 900 - 100 * step)
            counted = counted_macs(lambda given, times=times: copied(given, times, labels), x)
            assert counted == pytest.approx(2 * call_macs(copied, step, BRIEF.steps), rel=OVER.get(name, 0)), step


OVER = {"cat-pruning-reading": 2e-3}
"""CAT Pruning clusters once for both halves."""


@pytest.mark.parametrize("name", FEW)
def test_runs_without_content_and_costs_the_same(small, name):
    with torch.device("meta"):
        empty = dit.METHOD.build(small_vae(), **SMALL)
    copied = reduced(name, empty, **FEW[name])
    with FlopCounterMode(display=False) as counter:
        images = copied.sample(torch.tensor([3]), seeded(0), BRIEF)
    assert images.is_meta
    assert images.shape == (1, 3, 32, 32)
    assert counter.get_total_flops() > 0


def test_a_block_under_tomesd_is_plain_loops(small):
    copied = reduced("tomesd", small, ratio=0.4, randomized=False)
    begin(copied, [1], 1)
    taps = []
    copied.blocks[2].register_forward_hook(lambda _, args, out: taps.append((*args, out)))
    with torch.no_grad():
        copied(torch.randn(2, 4, 8, 8).double(), torch.tensor([500, 500]), torch.tensor([1, 10]))
        x, condition, out = taps[0]
        block = small.blocks[2]
        shift, scale, gate, *_ = block.adaLN_modulation(condition).chunk(6, dim=1)
        normed = modulate(block.norm1(x), shift, scale)
        for image in range(2):
            choice = torch.zeros(2, 2).numpy()
            groups = oracle(x[image].numpy(), torch.eye(16).double().numpy(), (4, 4), (2, 2), choice, int(16 * 0.4))
            shared = torch.from_numpy(groups)  # each row: the mean over its group
            distinct, owner = shared.unique(dim=0, return_inverse=True)
            assert len(distinct) == 16 - 6
            attended = block.attn((distinct @ normed[image])[None])[0][owner]
            after = x[image] + gate[image] * attended
            _, _, _, shift2, scale2, gate2 = block.adaLN_modulation(condition[image : image + 1]).chunk(6, dim=1)
            expected = after + gate2 * block.mlp(modulate(block.norm2(after[None]), shift2, scale2))[0]
            torch.testing.assert_close(out[image], expected, rtol=0, atol=1e-10)


def test_guided_and_unguided_halves_have_the_same_destinations(small):
    copied = reduced("tomesd", small)
    begin(copied, [1, 2], 1)
    x = torch.randn(2, 4, 8, 8).double()
    hook = getattr(copied, STATE).hook
    found, matched = [], hook.matched
    hook.matched = lambda *args, **kwargs: found.append(matched(*args, **kwargs)) or found[-1]
    with torch.no_grad():
        copied(torch.cat([x, x]), torch.full((4,), 500), torch.tensor([1, 2, 10, 10]))
    kept = torch.stack([each.kept[:, -4:] for each in found])  # blocks, batch, destinations
    assert torch.equal(kept[:, :2], kept[:, 2:])
    assert not torch.equal(kept[:, 0], kept[:, 1])
    assert len({tuple(each[0].tolist()) for each in kept}) > 1


def test_blocks_compile_to_the_same_numbers(small, monkeypatch):
    compile_block = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile_block(self, backend="eager"))
    copied = reduced("tomesd", small)
    expected = latents(copied)
    assert copied.compile_blocks() == SMALL["depth"]
    torch.testing.assert_close(latents(copied), expected, rtol=0, atol=1e-9)


def test_calls_that_belong_to_no_run(small):
    copied = reduced("tomesd", small)
    call = (torch.randn(2, 4, 8, 8).double(), torch.tensor([500, 500]), torch.tensor([1, 10]))
    with pytest.raises(MethodError, match="call begin"):
        copied(*call)
    begin(copied, [1, 2, 3], 1)
    with pytest.raises(MethodError, match="3 images"):
        copied(*call)
    begin(copied, [1], 1)
    with torch.no_grad():
        copied(*call)
        with pytest.raises(MethodError, match="one more"):
            copied(*call)
    with pytest.raises(MethodError, match="not reduced"):
        begin(small, [1], 1)


@pytest.mark.parametrize("name", FEW)
def test_a_network_without_known_blocks(name):
    other = nn.Sequential(nn.Linear(3, 3), nn.ModuleList([nn.TransformerEncoderLayer(4, 1)]))
    with pytest.raises(
        UnsupportedBackboneError, match=r"Sequential has no blocks .*it has TransformerEncoderLayer"
    ) as caught:
        reduced(name, other)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("tomesd", {"ratio": 0.8}),
        ("tomesd", {"ratio": math.nan}),
        ("tomesd", {"cell": (0, 2)}),
        ("tomesd", {"max_downsample": 0}),
        ("atc", {"ratio": 1.0}),
        ("atc", {"linkage": "ward"}),
        ("importance-merging", {"ratio": 0.8}),
        ("importance-merging", {"destinations": 0.0}),
        ("importance-merging", {"pool": 0.5}),
        ("importance-merging", {"metric": "keys"}),
        ("importance-merging", {"important_from": 0}),
        ("cat-pruning-reading", {"keep_rate": 0.0}),
        ("cat-pruning-reading", {"balance": 2.0}),
        ("cat-pruning-reading", {"reference": 8}),
        ("flexdit-schedule-reading", {"first": 1.0}),
        ("flexdit-schedule-reading", {"first": 0.5, "last": 0.6}),
        ("flexdit-schedule-reading", {"skip": (-1, 0)}),
    ],
)
def test_settings_that_cannot_be(name, wrong):
    with pytest.raises(BudgetError) as caught:
        registry.in_sampler(name).settings(**wrong)
    assert "\n" not in str(caught.value)


def test_flexdit_itself_pools_by_the_schedule():
    config = {
        **SMALL,
        "depth": 8,
        "input_size": 16,
        "num_poolingformer": 1,
        "num_dumbbell": 1,
        "num_normal_block": 1,
        "semantic_size": 4,
    }
    small = with_drawn_weights(sparsedit.METHOD.build(None, **config))
    copied, counts = reduced("flexdit-schedule-reading", small), []
    for block in copied.dumbbell_blocks[0].semantic_blocks[:1]:
        block.register_forward_hook(lambda _, __, out: counts.append(math.isqrt(out.shape[1])))
    latents(copied, settings=DiffusionSettings(steps=8, cfg_scale=1.0))
    assert counts == [3, 3, 3, 3, 4, 4, 4, 5]  # of 8: the sides that rates of 0.86 to 0.61 leave, rounded
    pooled = reduced("flexdit-schedule-reading", small, first=0.75, last=0.75)
    torch.testing.assert_close(latents(pooled), latents(small), rtol=0, atol=1e-12)  # as many as it was trained with
    with pytest.raises(UnsupportedBackboneError, match="mixes them"):
        reduced("cat-pruning-reading", small)


def test_attach_takes_any_hook(small):
    torch.testing.assert_close(latents(attach(small, SamplerHook())), latents(small), rtol=0, atol=0)
