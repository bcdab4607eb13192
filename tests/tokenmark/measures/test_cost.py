"""The cost of a vision transformer by formula against torch's counter, by hand and as published."""

import pytest
import torch
from timm import create_model
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.reference_impls import vits
from tokenmark import build
from tokenmark.contracts import BlockCost, BlockTokens, VitCost
from tokenmark.measures.cost import counted_macs


@pytest.mark.parametrize("name", vits.SERVED)
def test_agrees_with_the_counter(name):
    model = vits.served(name).requires_grad_(requires_grad=False)
    base = build.reduced("none", model, {}, attention="eager")
    with sdpa_kernel(SDPBackend.MATH):  # of attention pooling, which timm alone runs
        counted = counted_macs(base, vits.images_for(model, 1))
    assert base.cost.macs(base.schedule) == pytest.approx(counted, rel=1e-9)


def test_by_hand():
    """One block, 4 patches of 2 x 2 x 3 values, width 2, MLP of 3, 5 classes; 5 tokens attend, 3 go on."""
    embedding = 4 * 12 * 2
    attention = 5 * 2 * (3 * 2) + 5 * 5 * 2 + 5 * 5 * 2 + 5 * 2 * 2  # q, k and v; scores; weighted sum; projection
    mlp = 3 * 2 * 3 + 3 * 3 * 2
    cost = VitCost(embed=4 * 12 * 2, blocks=(BlockCost(linear=4 * 2 * 2, pairs=2 * 2, mlp=2 * 2 * 3),), head=2 * 5)
    assert cost.macs([BlockTokens(attention=5, mlp=3)]) == embedding + attention + mlp + 2 * 5


def test_counts_distances_as_products():
    points = torch.rand(2, 7, 5)
    assert counted_macs(lambda x: torch.cdist(x, x), points) == 2 * 7 * 7 * 5


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
    for r, expected in PUBLISHED[name].items():
        reduced = build.reduced("tome", model, {"r": r})
        assert reduced.cost.macs(reduced.schedule) / 1e9 == pytest.approx(expected, abs=0.0005)
