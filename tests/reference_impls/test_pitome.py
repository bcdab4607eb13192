"""PiToMe: its matching against plain loops, its shrinking budget, and what it refuses."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impls.reducers import pitome
from reference_impls.reducers.pitome import PitomeSettings, energy_matching
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError


def oracle(metric, r, prefix, margin, protect):
    """The groups of one image in output order, by plain loops."""
    unit = metric / np.linalg.norm(metric, axis=1, keepdims=True)
    cosine = unit @ unit.T
    patches = range(prefix, len(metric))
    energy = {i: np.mean([e if e > 0 else math.expm1(e) for e in cosine[i, prefix:] - margin]) for i in patches}
    order = sorted(patches, key=lambda i: (-energy[i], i))
    able = order[: 2 * r] if protect else order
    givers, takers = able[::2], able[1::2]
    best = {i: max(takers, key=lambda j: (cosine[i, j], -takers.index(j))) for i in givers}
    if protect:
        stays = order[2 * r :]
    else:
        givers.sort(key=lambda i: (-cosine[i, best[i]], order.index(i)))
        givers, stays = givers[:r], givers[r:]
    groups = [[i] for i in range(prefix)] + [[i] for i in stays]
    return groups + [[j, *(i for i in givers if best[i] == j)] for j in takers]


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 21), st.integers(0, 3), st.booleans(), st.data())
def test_matching_equals_the_oracle(patches, prefix, protect, data):
    r = data.draw(st.integers(1, patches // 2))
    margin = data.draw(st.floats(-0.5, 0.9))
    metric = np.random.default_rng(data.draw(st.integers(0, 10**6))).standard_normal((1, prefix + patches, 5))
    matching = energy_matching(torch.from_numpy(metric), r, prefix, margin, protect=protect)
    kept, merged, into = (each[0].tolist() for each in (matching.kept, matching.merged, matching.into))
    groups = [[i, *(j for j, place in zip(merged, into, strict=True) if place == at)] for at, i in enumerate(kept)]
    expected = oracle(metric[0], r, prefix, margin, protect)
    assert [group[0] for group in groups] == [group[0] for group in expected]
    assert [set(group) for group in groups] == [set(group) for group in expected]


def test_fewer_tokens_go_the_deeper_the_block():
    with torch.device("meta"):
        model = vits.VisionTransformer(embed_dim=16, num_heads=2)
    counts = [block.mlp for block in pitome.METHOD.build(model, PitomeSettings(ratio=0.9)).schedule]
    assert counts[:3] == [178, 161, 145]  # 197 - floor(19.6), - floor(17.7), - floor(16)
    assert all(a - b >= b - c for a, b, c in zip(counts, counts[1:], counts[2:], strict=False))


def test_which_half_protects_matters():
    model = vits.served("vit")
    images = vits.images_for(model)
    late, early = (
        pitome.METHOD.build(model, PitomeSettings(ratio=0.7, protecting=half))(images) for half in ("late", "early")
    )
    assert (late - early).abs().max() > 1e-6


@pytest.mark.parametrize("ratio", [0.49, 1.01, -1.0, float("nan")])
def test_refuses_to_merge_more_than_half(ratio):
    with pytest.raises(BudgetError, match=r"from 0\.5 to 1") as caught:
        pitome.METHOD.build(vits.served("vit"), PitomeSettings(ratio=ratio))
    assert "\n" not in str(caught.value)
