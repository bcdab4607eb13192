"""What each reducer of samplers chooses, against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from reference_impls.layers.sampler_hook import Call, Place
from reference_impls.reducers.cat_pruning_reading import CatPruning, CatSettings, share_of_each, shares
from reference_impls.reducers.flexdit_schedule_reading import PooledTokens, ScheduleSettings, rate_at
from reference_impls.reducers.importance_merging import ImportanceMerging, ImportanceSettings
from tokenmark.contracts import MethodError

PLACE = Place(block=0, blocks=1, grid=(4, 6), smaller=1, width=3)


def call(step, before=None, halves=2, seeds=(7, 8), steps=10):
    return Call(
        step=step,
        steps=steps,
        seeds=seeds,
        halves=halves,
        channels=2,
        patch=2,
        grid=(4, 6),
        device=torch.device("cpu"),
        before=before,
    )


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def begun(hook, step, before):
    hook.begin(call(0))
    hook.begin(call(step, before))
    return hook


@pytest.mark.parametrize("metric", ["tokens", "positions"])
def test_importance_keeps_the_pool_before_all(metric):
    settings = ImportanceSettings(ratio=0.5, pool=1.0, metric=metric)
    before, x = drawn(4, 3, 8, 12), drawn(4, 24, 3, seed=1)
    hook, kept = begun(ImportanceMerging(settings), 3, before), []
    merging = hook.merge(x, PLACE)
    marks = torch.eye(24, dtype=torch.float64).expand(4, -1, -1)
    shares_of = merging.merge(marks)  # (4, 12, 24): how much of every token stands in each that is left
    assert shares_of.shape == (4, 12, 24)
    for image in range(4):
        told, untold = before[image % 2, :2].numpy(), before[image % 2 + 2, :2].numpy()
        heat = np.abs(told - untold).mean(axis=0).reshape(4, 2, 6, 2).mean(axis=(1, 3)).flatten()
        important = set(np.argsort(-heat)[:12].tolist())
        groups = [set(row.nonzero().flatten().tolist()) for row in shares_of[image]]
        alone, destinations = groups[: 12 - 6], groups[12 - 6 :]
        assert all(len(group) == 1 and group <= important for group in alone)
        assert all(group & important for group in destinations)
        kept.append(sorted(map(sorted, destinations)))
        assert sum(map(len, groups)) == 24
    assert kept[0] != kept[1]


def test_importance_before_it_is_known():
    hook = ImportanceMerging(ImportanceSettings(ratio=0.5))
    hook.begin(call(0))
    x = drawn(4, 24, 3)
    merging = hook.merge(x, PLACE)
    kept = merging.merge(x)
    for image in range(4):  # those to be merged are left out, and what stays is as it was
        assert all((x[image] == row).all(dim=1).any() for row in kept[image])
    with pytest.raises(MethodError, match="needs guidance"):
        hook.begin(call(0, halves=1))


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_share_of_each_cluster_and_the_best_of_it(data):
    tokens, clusters = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 4))
    count = data.draw(st.integers(1, tokens))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    score, cluster = rng.permutation(tokens).astype(float), rng.integers(clusters, size=tokens)
    found = share_of_each(torch.from_numpy(score)[None], torch.from_numpy(cluster)[None], clusters, count)[0].tolist()
    heights = []
    for token in range(tokens):
        others = [i for i in range(tokens) if cluster[i] == cluster[token]]
        heights.append(((sum(score[i] > score[token] for i in others) + 0.5) / len(others), token))
    assert found == sorted(token for _, token in sorted(heights)[:count])


def test_cat_pruning_computes_what_changed_and_keeps_what_the_others_gave():
    settings = CatSettings(keep_rate=0.25, whole_steps=2, balance=0.0, clusters=(1, 1))
    hook, outputs = CatPruning(settings), [drawn(4, 4, 8, 12, seed=seed) for seed in range(3)]
    hook.begin(call(0))
    assert hook.merge(drawn(4, 24, 3), PLACE) is None
    torch.testing.assert_close(hook.finish(outputs[0]), outputs[0])
    hook.begin(call(1, outputs[0]))
    remembering = hook.merge(drawn(4, 24, 3), PLACE)
    keys = drawn(4, 24, 3, seed=9)
    assert remembering.recall("key", keys) is keys
    hook.finish(outputs[1])
    hook.begin(call(2, outputs[1]))
    norms = (outputs[1] - outputs[0])[:, :2].reshape(2, 2, 2, 4, 2, 6, 2).square().sum(dim=(2, 4, 6)).sqrt()
    expected = norms.mean(dim=0).flatten(1).topk(6, dim=1).indices.sort(dim=1).values
    torch.testing.assert_close(hook.chosen, expected)
    x = drawn(4, 24, 3, seed=3)
    merging = hook.merge(x, PLACE)
    chosen = torch.cat([expected, expected])[..., None].expand(-1, -1, 3)
    torch.testing.assert_close(merging.merge(x), x.gather(1, chosen))
    torch.testing.assert_close(
        merging.unmerge(merging.merge(x)), torch.zeros_like(x).scatter(1, chosen, x.gather(1, chosen))
    )
    fresh = drawn(4, 6, 3, seed=4)
    torch.testing.assert_close(merging.recall("key", fresh), keys.scatter(1, chosen, fresh))
    given_ = hook.finish(outputs[2])
    computed = torch.zeros(2, 24).scatter(1, expected, 1.0).reshape(2, 1, 4, 6)
    computed = torch.cat([computed] * 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(given_, torch.where(computed > 0, outputs[2], outputs[1]))


def test_cat_pruning_by_staleness_alone_takes_turns():
    hook = CatPruning(CatSettings(keep_rate=0.25, whole_steps=1, reference=0, balance=1.0, clusters=(1, 1)))
    hook.begin(call(0))
    hook.finish(drawn(4, 4, 8, 12))
    computed = []
    for step in range(1, 5):
        hook.begin(call(step))
        computed += hook.chosen[0].tolist()
        hook.finish(drawn(4, 4, 8, 12, seed=step))
    assert sorted(computed) == list(range(24))


def test_shares_of_nothing_are_zero():
    torch.testing.assert_close(shares(torch.tensor([[0.0, 0.0], [1.0, 4.0]])), torch.tensor([[0.0, 0.0], [0.25, 1.0]]))


def test_the_schedule_of_flexdit():
    settings = ScheduleSettings(first=0.86, last=0.61)
    rates = [rate_at(step, 100, settings) for step in range(101)]
    assert rates[:26] == [0.86] * 26
    assert rates[-1] == pytest.approx(0.61)
    assert rates == sorted(rates, reverse=True)
    assert np.diff(rates[25:]) == pytest.approx(-0.25 / 75)
    hook = PooledTokens(settings, in_dumbbells=False)
    assert hook.few((32, 32), 0, 100) == (12, 12)
    assert hook.few((32, 32), 100, 100) == (20, 20)


def test_pooling_is_a_mean_that_goes_to_the_nearest():
    hook = PooledTokens(ScheduleSettings(first=0.75, last=0.75, skip=(0, 0)), in_dumbbells=False)
    hook.begin(call(0))
    x = drawn(4, 24, 3)
    merging = hook.merge(x, PLACE)
    cells = x.reshape(4, 2, 2, 3, 2, 3).mean(dim=(2, 4))
    torch.testing.assert_close(merging.merge(x), cells.reshape(4, 6, 3))
    spread = cells.repeat_interleave(2, 1).repeat_interleave(2, 2).reshape(4, 24, 3)
    torch.testing.assert_close(merging.unmerge(merging.merge(x)), spread)
    assert hook.seen(PLACE, 0, 10).computed == 6
