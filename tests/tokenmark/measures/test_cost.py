"""The formula for MACs against torch's counter and published numbers."""

import pytest
import torch
from timm import create_model
from timm.models.vision_transformer import VisionTransformer
from torch.nn.attention import SDPBackend, sdpa_kernel

from reference_impls.reducers import tome
from reference_impls.reducers.tome import TomeSettings
from tokenmark.contracts import BlockTokens
from tokenmark.measures.cost import VitSizes, counted_macs, vit_macs

SMALL = {"embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": 7}
SHAPES = {
    "plain": {"img_size": 32, "patch_size": 4, **SMALL},
    "registers": {"img_size": 32, "patch_size": 8, "reg_tokens": 4, **SMALL},
    "average, no class token": {"img_size": 48, "class_token": False, "global_pool": "avg", **SMALL},
    "wide MLP, no bias": {"img_size": 64, "mlp_ratio": 6, "qkv_bias": False, **SMALL},
    "many tokens": {"img_size": 96, "patch_size": 4, **SMALL},
    "oblong": {"img_size": (48, 80), **SMALL},
}


def unreduced(sizes):
    tokens = sizes.patches + sizes.prefix
    return [BlockTokens(tokens, tokens)] * sizes.blocks


@pytest.mark.parametrize("name", SHAPES)
def test_agrees_with_the_counter(name):
    model = VisionTransformer(**SHAPES[name]).eval()
    sizes = VitSizes.of(model)
    with sdpa_kernel(SDPBackend.MATH):
        counted = counted_macs(model, torch.rand(1, 3, *model.patch_embed.img_size))
    assert vit_macs(sizes, unreduced(sizes)) == pytest.approx(counted, rel=0.01)


def test_agrees_with_the_counter_on_a_reduced_model():
    model = VisionTransformer(**SHAPES["many tokens"]).eval()
    reduced = tome.build(model, TomeSettings(r=150), attention="eager")
    formula = vit_macs(VitSizes.of(model), reduced.schedule)
    assert formula < 0.7 * vit_macs(VitSizes.of(model), unreduced(VitSizes.of(model)))
    # the driver's own work on tokens (similarities of the matching) is not in the formula
    assert formula == pytest.approx(counted_macs(reduced, torch.rand(1, 3, 96, 96)), rel=0.05)


def test_sizes_of_a_model_without_a_head():
    sizes = VitSizes.of(VisionTransformer(**{**SHAPES["registers"], "num_classes": 0}))
    assert sizes == VitSizes(patches=16, patch_values=192, width=48, mlp_width=192, classes=0, blocks=3, prefix=5)


def by_hand():
    """One block, 4 patches of 2 x 2 x 3 values, width 2, MLP of 3, 5 classes; 5 tokens attend, 3 go on."""
    embedding = 4 * 12 * 2
    attention = 5 * 2 * (3 * 2) + 5 * 5 * 2 + 5 * 5 * 2 + 5 * 2 * 2  # q, k and v; scores; weighted sum; projection
    mlp = 3 * 2 * 3 + 3 * 3 * 2
    return embedding + attention + mlp + 2 * 5


def test_by_hand():
    sizes = VitSizes(patches=4, patch_values=12, width=2, mlp_width=3, classes=5, blocks=1, prefix=1)
    assert vit_macs(sizes, [BlockTokens(attention=5, mlp=3)]) == by_hand()


PUBLISHED = {
    "deit_tiny_patch16_224": {0: 1.254, 8: 0.924, 13: 0.731, 16: 0.622},
    "deit_small_patch16_224": {0: 4.599, 8: 3.416, 13: 2.703, 16: 2.291},
    "deit_base_patch16_224": {0: 17.564, 8: 13.104, 13: 10.367, 16: 8.772},
}
"""Thousand millions of MACs of DeiT, unreduced and with ToMe at r; what papers print as GFLOPs."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name):
    with torch.device("meta"):
        model = create_model(name).eval()
    sizes = VitSizes.of(model)
    for r, expected in PUBLISHED[name].items():
        schedule = tome.build(model, TomeSettings(r=r)).schedule
        assert vit_macs(sizes, schedule) / 1e9 == pytest.approx(expected, abs=0.0005)
        if r == 0:
            assert list(schedule) == unreduced(sizes)
