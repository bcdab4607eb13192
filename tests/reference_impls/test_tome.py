"""ToMe against its release's vectors, its matching against an oracle in NumPy, and its budget."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impls.layers.matching import bipartite_soft_matching, most_merges
from reference_impls.layers.reduction import TokenState, merge
from reference_impls.reducers import tome
from reference_impls.reducers.tome import TomeSettings
from tests.reference_impls import vits
from tokenmark.contracts import BlockTokens, BudgetError


def oracle(metric, r, prefix):
    """The groups of one image in output order, by plain loops; of equal similarities the earlier position first."""
    unit = metric / np.linalg.norm(metric, axis=1, keepdims=True)
    tokens = len(metric)
    proposals = []
    for even in range(0, tokens, 2):
        odds = [odd for odd in range(1, tokens, 2) if odd >= prefix]
        if even >= prefix:
            best = max(odds, key=lambda odd: (unit[even] @ unit[odd], -odd))
            proposals.append((-(unit[even] @ unit[best]), even, best))
    gone = {even: odd for _, even, odd in sorted(proposals)[:r]}
    order = list(range(prefix))
    if prefix:
        order += [token for token in range(prefix, tokens) if token % 2 == 0 and token not in gone]
    else:
        order += [even for _, even, _ in sorted(proposals)[r:]]
    order += [token for token in range(prefix, tokens) if token % 2 == 1]
    return [[token, *(even for even, odd in gone.items() if odd == token)] for token in order]


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 23), st.integers(0, 6), st.integers(1, 12), st.integers(0, 10**6))
def test_matching_equals_the_oracle(patches, prefix, r, seed):
    tokens = patches + prefix
    r = min(r, most_merges(tokens, prefix))
    rng = np.random.default_rng(seed)
    metric, x = rng.standard_normal((2, tokens, 5)), rng.standard_normal((2, tokens, 3))
    size = rng.integers(1, 9, (2, tokens)).astype(float)
    matching = bipartite_soft_matching(torch.from_numpy(metric), r, prefix)
    state = merge(TokenState(torch.from_numpy(x), torch.from_numpy(size)), matching)
    for image in range(2):
        groups = oracle(metric[image], r, prefix)
        mass = np.array([size[image, group].sum() for group in groups])
        mean = np.stack([(x[image, group] * size[image, group, None]).sum(0) for group in groups]) / mass[:, None]
        np.testing.assert_allclose(state.size[image], mass)
        np.testing.assert_allclose(state.x[image], mean, atol=1e-12)


def test_equal_similarities_merge_the_earliest():
    matching = bipartite_soft_matching(torch.ones(1, 9, 4), 2, prefix=1)
    assert matching.merged.tolist() == [[2, 4]]
    assert matching.kept[0, matching.into[0]].tolist() == [1, 1]


def test_ranks_in_single_precision_under_autocast():
    metric = 1 + 0.05 * torch.randn(2, 40, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        low = bipartite_soft_matching(metric, 8, prefix=1)
    exact = bipartite_soft_matching(metric.double(), 8, prefix=1)
    assert torch.equal(low.merged, exact.merged)
    assert torch.equal(low.into, exact.into)


def test_keys_of_zero_length_do_not_spread_nan():
    metric = torch.randn(1, 9, 4)
    metric[0, 4] = 0
    assert sorted(bipartite_soft_matching(metric, 4, prefix=1).merged[0].tolist()) == [2, 4, 6, 8]


def test_default_budget_of_a_vit_at_224():
    """The counts of facts on r = 16, whose last block is clipped."""
    with torch.device("meta"):
        model = vits.VisionTransformer(embed_dim=16, num_heads=2)
    left = [block.mlp for block in tome.METHOD.build(model, TomeSettings(r=16)).schedule]
    assert left == [181, 165, 149, 133, 117, 101, 85, 69, 53, 37, 21, 11]
    assert tome.METHOD.build(model, TomeSettings()).schedule[0] == BlockTokens(attention=197, mlp=189)


@pytest.mark.parametrize("name", ["vit", "deit-distilled", "dinov2-registers", "average", "average-beside-class"])
def test_size_mass_is_conserved_and_prefix_tokens_stay_alone(name):
    model = vits.served(name)
    trace = tome.METHOD.build(model, TomeSettings(r=3)).trace(vits.images_for(model))
    prefix = model.num_prefix_tokens
    assert trace.size.sum(dim=1).tolist() == [trace.sources[0].shape[1]] * 2
    assert (trace.size[:, :prefix] == 1).all()
    for source in trace.sources:
        assert source[:, :prefix].tolist() == [list(range(prefix))] * 2
        assert (source[:, prefix:] >= prefix).all()


def test_proportional_attention_changes_the_logits():
    model = vits.served("vit")
    images = vits.images_for(model)
    on, off = (tome.METHOD.build(model, TomeSettings(r=3, proportional=value))(images) for value in (True, False))
    assert (on - off).abs().max() > 1e-4


@pytest.mark.parametrize(
    "wrong",
    [
        {"r": -1},
        {"inflection": 1.5},
        {"inflection": -1.5},
        {"inflection": float("nan")},
        {"per_block": (1, -1)},
        {"per_block": (1,) * 5},
    ],
)
def test_refuses_an_impossible_budget(wrong):
    with pytest.raises(BudgetError) as caught:
        tome.METHOD.build(vits.served("vit"), TomeSettings(**wrong))
    assert "\n" not in str(caught.value)
