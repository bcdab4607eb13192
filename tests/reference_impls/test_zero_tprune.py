"""Zero-TPrune: its stages by plain loops, and its ladder of costs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impls.layers.attention_graph import among, joined, page_rank, unlike
from reference_impls.reducers.zero_tprune import LADDER, METHOD, ZeroTPruneSettings
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError


def deit_small():
    with torch.device("meta"):
        return vits.VisionTransformer(embed_dim=384, num_heads=6)


@pytest.mark.parametrize(("name", "printed"), [("a", 2.97), ("b", 2.50), ("c", 3.97)])
def test_ladder_costs_what_the_paper_prints(name, printed):
    reduced = METHOD.build(deit_small(), LADDER[name])
    assert round(reduced.cost.macs(reduced.schedule) / 1e9, 2) == printed
    assert reduced.extra_macs < 0.02e9
    whole = reduced.cost.macs(reduced.backbone.unreduced())
    assert (reduced.cost.macs(reduced.schedule) + reduced.extra_macs) / whole <= LADDER[name].macs_rate


def test_unscaled_it_is_as_cheap_as_the_ablations_of_the_paper():
    reduced = METHOD.build(deit_small(), ZeroTPruneSettings(macs_rate=None))
    assert [block.attention - 1 for block in reduced.schedule] == [
        196, 186, 186, 158, 158, 158, 118, 118, 118, 75, 75, 65
    ]  # fmt: skip
    ratio = reduced.cost.macs(reduced.schedule) / reduced.cost.macs(reduced.backbone.unreduced())
    assert ratio == pytest.approx(3.08 / 4.55, abs=2e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 15), st.data())
def test_dropping_the_alike_equals_plain_loops(patches, data):
    r = data.draw(st.integers(0, patches // 2))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    scores, metric = rng.integers(0, 4, patches) / 4, rng.standard_normal((patches, 3))
    order = sorted(range(patches), key=lambda i: (-scores[i], i))
    half = (patches + 1) // 2
    unit = metric / np.linalg.norm(metric, axis=1, keepdims=True)
    alike = {i: max(unit[i] @ unit[j] for j in order[:half]) for i in order[half:]}
    dropped = sorted(alike, key=lambda i: -alike[i])[:r]
    got = unlike(torch.from_numpy(scores)[None], torch.from_numpy(metric)[None], r)
    assert got.tolist() == [[i for i in range(patches) if i not in dropped]]


def test_of_equally_alike_patches_the_less_important_goes():
    metric = torch.ones(1, 6, 2)
    assert unlike(torch.tensor([[6.0, 5, 4, 3, 2, 1]]), metric, 2).tolist() == [[0, 1, 2, 3]]
    assert unlike(torch.zeros(1, 6), metric, 1).tolist() == [[0, 1, 2, 3, 4]]


def test_votes_settle_where_the_walk_does():
    torch.manual_seed(0)
    rows = torch.randn(1, 2, 7, 7).double().softmax(dim=-1)
    scores = page_rank(rows, torch.ones(1, 2, 1, 7).double(), 60)
    torch.testing.assert_close((scores[:, :, None] @ rows).squeeze(2), scores)
    torch.testing.assert_close(scores.sum(dim=2), torch.full((1, 2), 7.0).double())


def test_heads_join_by_the_root_of_their_mean_square_if_they_vary_enough():
    flat, varied, wild = torch.ones(4), torch.tensor([0.5, 1.5, 0.5, 1.5]), torch.tensor([0.0, 0.0, 0.0, 4.0])
    other = torch.tensor([1.5, 1.5, 0.5, 0.5])
    heads = torch.stack((flat, varied, wild, other))[None]
    expected = ((varied.square() + other.square()) / 2).sqrt()
    torch.testing.assert_close(joined(3 * heads, (0.01, 0.7))[0], expected)
    torch.testing.assert_close(joined(torch.stack((flat, flat))[None], (0.01, 0.7))[0], flat)


def test_survivors_share_their_votes_among_themselves():
    rows = torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.1, 0.8], [0.25, 0.5, 0.25]])[None, None]
    expected = torch.tensor([[0.2 / 0.7, 0.5 / 0.7], [0.5, 0.5]])
    torch.testing.assert_close(among(rows, torch.tensor([[0, 2]]))[0, 0], expected)


def test_the_class_token_votes_more_in_the_first_round():
    model = vits.served("vit")
    once = {"macs_rate": None, "keep": (0.5,), "blocks": (1,), "similar": 0, "rounds": (1, 1, 1)}
    kept = [
        METHOD.build(model, ZeroTPruneSettings(**once, class_boost=boost)).trace(vits.images_for(model, 8)).sources[-1]
        for boost in (True, False)
    ]
    assert not torch.equal(*kept)
    lacking = vits.served("average")
    same = [METHOD.build(lacking, ZeroTPruneSettings(**once, class_boost=boost)) for boost in (True, False)]
    images = vits.images_for(lacking)
    assert torch.equal(same[0](images), same[1](images))


@pytest.mark.parametrize("backbone", ["dinov2-registers", "dinov3", "deit-distilled"])
def test_prefix_tokens_stay_and_patches_keep_their_order(backbone):
    model = vits.served(backbone)
    asked = ZeroTPruneSettings(macs_rate=None, keep=(0.8, 0.6), blocks=(0, 2), similar=3)
    reduced = METHOD.build(model, asked)
    prefix, patches = reduced.backbone.prefix, reduced.backbone.patches
    left = [int((patches - 3) * 0.8)]
    left.append(int((left[0] - 3) * 0.6))
    assert [block.mlp - prefix for block in reduced.schedule] == [patches, left[0], left[0], left[1]]
    source = reduced.trace(vits.images_for(model)).sources[-1]
    assert source[:, :prefix].tolist() == [list(range(prefix))] * 2
    for image in source:
        assert image[image >= 0].tolist() == list(range(prefix + left[1]))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"macs_rate": 0.0}, "above 0"),
        ({"macs_rate": 0.05}, "or more"),
        ({"keep": (0.5,)}, "5 shares"),
        ({"keep": (0.5, 0.0), "blocks": (1, 2)}, "above 0"),
        ({"blocks": (1, 4), "keep": (0.5, 0.5)}, "0 to 3"),
        ({"similar": -1}, "not negative"),
        ({"rounds": (0, 1, 1)}, "1 or more"),
        ({"macs_rate": None, "similar": 9, "keep": (1.0,), "blocks": (1,)}, "half of them"),
        ({"macs_rate": None, "similar": 0, "keep": (0.01,), "blocks": (1,)}, "one must stay"),
    ],
)
def test_refuses_an_impossible_budget(wrong, reason):
    with pytest.raises(BudgetError, match=reason) as caught:
        METHOD.build(vits.served("vit"), ZeroTPruneSettings(**wrong))
    assert "\n" not in str(caught.value)
