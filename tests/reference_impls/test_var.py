"""VAR: the release's checkpoints fit, and a sample is its own scales' and nobody else's."""

import dataclasses

import pytest
import torch

from reference_impls.generators.var import METHOD, VarSettings, likeliest
from reference_impls.layers.class_generator import Watch
from reference_impls.layers.noise import Draws
from reference_impls.parity._recorded import Remembering
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
    assert dataclasses.asdict(METHOD.presets[f"var-{variant}-paper"].settings) == official


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


@torch.no_grad()
def test_scale_by_scale_gives_the_logits_of_all_scales_at_once(var):
    labels, watch = torch.tensor([2, 9]), Remembering()
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


def test_autocast_halves_what_is_kept_and_not_the_sum():
    """Lengths are float32 under autocast, but nothing so wide is kept; the sum of scales is no network's business."""
    var, kept, cast = tiny().float(), [], []
    attend, step = torch.nn.functional.scaled_dot_product_attention, var.quantizer.step

    def attention(query, key, value, **options):
        kept.extend(part.dtype for part in (query, key, value))
        return attend(query, key, value, **options)

    def added(*given):
        cast.append(torch.is_autocast_enabled("cpu"))
        return step(*given)

    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
        patch.setattr(var.quantizer, "step", added)
        var.generate(torch.tensor([1, 2]), SETTINGS, Draws(seeded(1, 2), var.place), Watch())
    assert set(kept) == {torch.bfloat16}
    assert cast == [False, False]


def test_sizes_and_tokenizers_that_do_not_fit():
    with pytest.raises(MethodError, match=r"writes scales .* of 25 codes"):
        METHOD.build(VarVQ(**READS), **{**TINY, "vocab_size": 25})
    with pytest.raises(MethodError, match=r"writes scales \[1, 4\]"):
        METHOD.build(VarVQ(**READS), **{**TINY, "patch_nums": (1, 4)})
    with pytest.raises(MethodError, match="var-vq"):
        METHOD.build(torch.nn.Identity(), **TINY)
