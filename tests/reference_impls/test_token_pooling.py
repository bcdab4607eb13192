"""Token Pooling: its clusterings by plain loops, its counts for a cost, and the search for counts."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impls.layers.clustering import k_means, k_medoids
from reference_impls.layers.soft_extract import SoftExtract, search_counts
from reference_impls.layers.vit_backbone import inspect_backbone
from reference_impls.layers.vit_driver import ReducedViT
from reference_impls.reducers.token_pooling import METHOD, TokenPoolingSettings
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError

POOLED = {"kept": (9, 5, 5)}


def oracle(points, weights, start, iterations, *, medoids):
    """Centres of one image by plain loops; of K-medoids their indices."""
    centres = points[start].copy()
    at = list(start)
    for _ in range(iterations):
        distance = np.linalg.norm(points[:, None] - centres[None], axis=2)
        member = [min(range(len(start)), key=lambda c: (distance[i, c], c)) for i in range(len(points))]
        for cluster in range(len(start)):
            own = [i for i in range(len(points)) if member[i] == cluster]
            if own and medoids:
                at[cluster] = min(
                    own, key=lambda m: (sum(weights[i] * ((points[i] - points[m]) ** 2).sum() for i in own), m)
                )
                centres[cluster] = points[at[cluster]]
            elif own:
                centres[cluster] = np.average(points[own], axis=0, weights=weights[own])
    return at if medoids else centres


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 20), st.data())
def test_clusterings_equal_plain_loops(tokens, data):
    k, iterations = data.draw(st.integers(1, tokens)), data.draw(st.integers(0, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    points, weights = rng.standard_normal((2, tokens, 3)), rng.random((2, tokens))
    start = np.stack([rng.permutation(tokens)[:k] for _ in range(2)])
    given = [torch.from_numpy(each) for each in (points, weights, start)]
    means, medoids = k_means(*given, iterations), k_medoids(*given, iterations)
    for i in range(2):
        parts = (points[i], weights[i], start[i], iterations)
        np.testing.assert_allclose(means[i], oracle(*parts, medoids=False))
        assert medoids[i].tolist() == oracle(*parts, medoids=True)


def test_rounds_never_raise_the_error():
    torch.manual_seed(0)
    points, weights = torch.randn(4, 40, 5), torch.rand(4, 40)
    start = weights.argsort(dim=1, descending=True)[:, :6]
    for cluster in (k_means, lambda *given: points.gather(1, k_medoids(*given)[..., None].expand(-1, -1, 5))):
        errors = [
            (weights * torch.cdist(points, cluster(points, weights, start, rounds)).square().amin(dim=2)).sum(dim=1)
            for rounds in range(6)
        ]
        assert all((after <= before + 1e-4).all() for before, after in pairwise(errors))


def test_equal_points_keep_their_centres():
    points, weights, start = torch.ones(1, 30, 4), torch.ones(1, 30), torch.tensor([[29, 28, 27]])
    assert k_medoids(points, weights, start, 2)[0, 1:].tolist() == [28, 27]
    assert torch.equal(k_means(points, torch.zeros(1, 30), start, 2), points[:, :3])


def test_gradients_pass_through_the_last_means():
    points = torch.randn(1, 9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    start = torch.tensor([[1, 4, 6]])
    weights = torch.linspace(1, 2, 9, dtype=torch.float64)[None]
    assert torch.autograd.gradcheck(lambda x: k_means(x, weights, start, 2), (points,))


@pytest.mark.parametrize("clustering", ["k-medoids", "k-means"])
@pytest.mark.parametrize("backbone", ["dinov2-registers", "dinov3", "beit", "average"])
def test_pools_patches_alone(clustering, backbone):
    model = vits.served(backbone)
    reduced = METHOD.build(model, TokenPoolingSettings(**POOLED, clustering=clustering))
    with torch.no_grad():
        trace = reduced.trace(vits.images_for(model))
    prefix = reduced.backbone.prefix
    assert [tokens.shape[1] - prefix for tokens in trace.tokens] == [9, 5, 5, 5]
    for source in trace.sources:
        assert source[:, :prefix].tolist() == [list(range(prefix))] * 2
        assert source[:, prefix:].min() >= prefix


def test_without_rounds_the_most_significant_tokens_stay_as_they_are():
    model = vits.served("vit")
    reduced = METHOD.build(model, TokenPoolingSettings(kept=(4, 4, 4), iterations=0), attention="eager")
    images, seen = vits.images_for(model), []
    model.blocks[0].attn.fused_attn = False
    model.blocks[0].attn.attn_drop.register_forward_hook(lambda _module, _inputs, rows: seen.append(rows))
    with torch.no_grad():
        tokens = model.blocks[0](model.norm_pre(model._pos_embed(model.patch_embed(images))))
        best = seen[0].sum(dim=(1, 2))[:, 1:].argsort(dim=1, descending=True)[:, :4] + 1
        expected = tokens.gather(1, best[..., None].expand(-1, -1, tokens.shape[2]))
        torch.testing.assert_close(reduced.trace(images).tokens[0][:, 1:], expected)


@pytest.mark.parametrize("clustering", ["k-medoids", "k-means"])
def test_costs_what_was_asked_for(clustering):
    """The paper's headline: 42 % less on DeiT-Ti."""
    with torch.device("meta"):
        model = vits.VisionTransformer(embed_dim=192, num_heads=3)
    reduced = METHOD.build(model, TokenPoolingSettings(clustering=clustering))
    whole = reduced.cost.macs(reduced.backbone.unreduced())
    assert whole / 1e9 == pytest.approx(1.254, abs=5e-4)
    assert 0.575 < (reduced.cost.macs(reduced.schedule) + reduced.extra_macs) / whole <= 0.58
    kept = [block.attention - 1 for block in reduced.schedule]
    ratios = [after / before for before, after in pairwise(kept)]
    assert max(ratios) - min(ratios) < 0.02


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"macs_rate": 0.0}, "above 0"),
        ({"macs_rate": 1.1}, "not above 1"),
        ({"macs_rate": 0.01}, "or more"),
        ({"kept": (4, 5, 3)}, "do not rise"),
        ({"kept": (4, 3)}, "3 numbers"),
        ({"kept": (17, 4, 4)}, "16 at the most"),
        ({"kept": (4, 4, 0)}, "1 at the least"),
        ({"iterations": -1}, "not be negative"),
    ],
)
def test_refuses_an_impossible_budget(wrong, reason):
    with pytest.raises(BudgetError, match=reason) as caught:
        METHOD.build(vits.served("vit"), TokenPoolingSettings(**wrong))
    assert "\n" not in str(caught.value)


def soft(model):
    backbone = inspect_backbone(model)
    return ReducedViT(backbone, SoftExtract(backbone).double())


def test_full_retention_is_the_model_itself_and_gradients_reach_it():
    model = vits.served("dinov2-registers")
    images, reduced = vits.images_for(model, 1), soft(vits.served("dinov2-registers"))
    torch.testing.assert_close(reduced(images), model(images))

    def logits(retention):
        return torch.func.functional_call(reduced, {"reduction.retention": retention}, images)

    assert torch.autograd.gradcheck(logits, (reduced.reduction.retention,), fast_mode=True)


def test_the_least_significant_patch_is_the_last_to_be_retained():
    model = vits.served("vit")
    images, reduced = vits.images_for(model), soft(vits.served("vit"))
    with torch.no_grad():
        reduced.reduction.retention[:, -1] = 0.5
        scaled = reduced.reduction.after_attention
        found = []

        def spied(block, state, seen):
            after = scaled(block, state, seen)
            if block == 0:
                least = seen.received()[:, 1:].argmin(dim=1) + 1
                found.append(after.x / state.x)
                found.append(least)
            return after

        reduced.reduction.after_attention = spied
        reduced(images)
    ratio, least = found
    assert torch.equal((ratio[..., 0] - 0.5).abs().argmin(dim=1), least)
    assert ((ratio - 1).abs().amax(dim=2) < 1e-9).sum(dim=1).tolist() == [16, 16]


def test_counts_are_masses_rounded_up_that_never_rise():
    found = soft(vits.served("vit")).reduction
    with torch.no_grad():
        found.retention[0] *= 0.51
        found.retention[2].zero_()
    assert found.counts() == (9, 9, 1)
    assert found.penalty().item() == pytest.approx(8.16 + 2 * 16)


def test_a_heavier_penalty_keeps_fewer_and_the_model_is_left_alone():
    model = vits.served("vit")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = [(vits.images_for(model), torch.tensor([0, 3]))] * 12
    light, heavy = (
        search_counts(model, batches, weight=weight, retention_lr=0.05, model_lr=1e-4) for weight in (0.0, 1.0)
    )
    assert sum(heavy) < sum(light)
    assert METHOD.build(model, TokenPoolingSettings(kept=heavy)).schedule[1].attention == 1 + heavy[0]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(value.requires_grad for value in model.parameters())
