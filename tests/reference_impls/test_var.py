"""VAR: the release's checkpoints fit, and a sample is its own scales' and nobody else's."""

import dataclasses

import pytest
import torch

from reference_impls.generators.var import METHOD, VarSettings, likeliest
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.noise import Draws
from reference_impls.tokenizers import var_vq
from reference_impls.tokenizers.var_vq import VarVQ
from tests.vector_case import VECTORS
from tokenmark.contracts import MethodError
from tokenmark.parity.compare import key_problems
from tokenmark.parity.vector import load

READS = {"image_size": 8, "scales": (1, 2, 4), "ch": 32, "ch_mult": (1, 1), "num_res_blocks": 1}
READS |= {"z_channels": 4, "codebook_size": 24}
TINY = {"num_classes": 10, "depth": 2, "embed_dim": 32, "num_heads": 2, "patch_nums": (1, 2, 4)}
TINY |= {"vocab_size": 24, "z_channels": 4}
SETTINGS = VarSettings(cfg=1.5, top_k=12, top_p=0.9)


def tiny(**changes):
    torch.manual_seed(0)
    tokenizer = VarVQ(**READS).double().eval()
    return METHOD.build(tokenizer, **{**TINY, **changes}).double().eval()


@pytest.fixture(scope="module")
def var():
    return tiny()


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [
        ("d16", 310_283_520),
        ("d20", 600_917_136),
        ("d24", 1_033_399_360),
        ("d30", 2_010_020_356),
        ("d36", 2_353_893_904),
    ],
)
def test_released_checkpoint_fits(variant, parameters):
    manifest, size = load(VECTORS / f"var__{variant}.manifest.json"), METHOD.variants[variant]
    reads = var_vq.METHOD.variants[size.tokenizer.partition("/")[2]]
    with torch.device("meta"):
        module = METHOD.build(VarVQ(**reads.config), **size.config)
    assert key_problems(module, manifest, METHOD.layout) == []
    assert module.parameters_total == parameters
    official = dict(manifest.config["sampling"])
    assert official.pop("more_smooth") is False
    assert dataclasses.asdict(METHOD.presets[f"{variant}-paper"]) == official


@pytest.mark.parametrize("changes", [{}, {"shared_aln": True}, {"attn_l2_norm": False}])
def test_a_sample_does_not_depend_on_its_batch(changes):
    var, labels = tiny(**changes), torch.tensor([3, 1, 4])
    together = var.sample(labels, seeded(5, 6, 7), SETTINGS)
    alone = torch.cat([var.sample(labels[i : i + 1], seeded(5 + i), SETTINGS) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    assert together.shape == (3, 3, 8, 8)
    assert 0 <= together.min() <= together.max() <= 1
    assert not torch.equal(together, var.sample(labels, seeded(8, 9, 10), SETTINGS))
    assert var.sample(labels[:0], [], SETTINGS).shape == (0, 3, 8, 8)


class Keeping(Watch):
    def __init__(self):
        super().__init__()
        self.seen = []

    def see(self, numbers):
        self.seen.append(numbers)
        return numbers


@torch.no_grad()
def test_scale_by_scale_gives_the_logits_of_all_scales_at_once(var):
    labels, watch = torch.tensor([2, 9]), Keeping()
    codes = var.generate(labels, VarSettings(cfg=0.0), Draws(seeded(1, 2), var.place), watch)
    at_once = var(labels, var.tokenizer.quantize.next_inputs(codes))
    torch.testing.assert_close(torch.cat(watch.seen, dim=1), at_once)


@torch.no_grad()
def test_no_guidance_is_the_limit_of_guidance(var):
    labels = torch.tensor([2, 9])
    unguided, almost = (
        var.generate(labels, VarSettings(cfg=cfg), Draws(seeded(1, 2), var.place), Watch()) for cfg in (0.0, 1e-12)
    )
    assert torch.equal(unguided, almost)
    strong = var.generate(labels, VarSettings(cfg=50.0), Draws(seeded(1, 2), var.place), Watch())
    assert torch.equal(unguided[:, :1], strong[:, :1])  # the first scale is never guided
    assert not torch.equal(unguided, strong)


def test_what_may_be_drawn():
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()[[2, 0, 3, 1]]

    def kept(top_k, top_p):
        return (likeliest(logits, top_k, top_p) > -torch.inf).tolist()

    assert kept(0, 0.0) == kept(4, 0.0) == kept(900, 1.0) == [True] * 4
    assert kept(2, 0.0) == [True, False, True, False]
    assert kept(0, 0.69) == [True, False, True, False]
    assert kept(0, 0.71) == [True, False, True, True]
    assert kept(0, 1e-9) == kept(1, 0.0) == [False, False, True, False]
    assert kept(2, 0.5) == [False, False, True, False]  # the share is of what the number leaves
    assert (likeliest(torch.zeros(4), 2, 0.0) == 0).all()  # equals stay together


def test_broken_weights_are_told(var):
    broken = tiny()
    torch.nn.init.constant_(broken.head.bias, torch.nan)
    with pytest.raises(MethodError, match="step 0"):
        broken.sample(torch.tensor([1]), seeded(1), SETTINGS)


def test_bad_calls_say_what_is_wrong(var):
    with pytest.raises(MethodError, match="0 to 9"):
        var.sample(torch.tensor([10]), seeded(1), SETTINGS)
    with pytest.raises(MethodError, match="one generator per label: got 1 for 2"):
        var.sample(torch.tensor([1, 2]), seeded(1), SETTINGS)
    with pytest.raises(MethodError, match=r"writes scales .* of 25 codes"):
        METHOD.build(VarVQ(**READS), **{**TINY, "vocab_size": 25})
    with pytest.raises(MethodError, match=r"writes scales \[1, 4\]"):
        METHOD.build(VarVQ(**READS), **{**TINY, "patch_nums": (1, 4)})
    with pytest.raises(MethodError, match="var-vq"):
        METHOD.build(torch.nn.Identity(), **TINY)


@pytest.mark.parametrize(
    ("name", "value"),
    [("cfg", -0.1), ("cfg", float("nan")), ("cfg", float("inf")), ("top_k", -1), ("top_p", 1.1), ("top_p", -0.1)],
)
def test_settings_out_of_range(name, value):
    with pytest.raises(MethodError, match=name):
        VarSettings(**{name: value})


def test_tokenizer_is_not_saved_with_the_generator(var):
    assert not any("quantize" in key for key in var.state_dict())
    assert METHOD.build(None, **TINY).parameters_total == var.parameters_total
