"""ATC: its clustering against plain loops, what each schedule removes, and what it refuses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impls.layers.agglomeration import agglomerate
from reference_impls.reducers import atc, atc_every_layer
from reference_impls.reducers.atc import AtcSettings
from reference_impls.reducers.atc_every_layer import AtcEveryLayerSettings
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError

JOIN = {"single": np.min, "complete": np.max, "average": np.mean}


def oracle(distances, count, linkage):
    """The clusters of one image: of all pairs always the nearest two are joined."""
    clusters = [[i] for i in range(len(distances))]
    while len(clusters) > count:
        pairs = [(a, b) for a in range(len(clusters)) for b in range(a)]
        a, b = min(pairs, key=lambda pair: JOIN[linkage](distances[np.ix_(clusters[pair[0]], clusters[pair[1]])]))
        clusters[b] += clusters.pop(a)
    return {frozenset(cluster) for cluster in clusters}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 16), st.sampled_from(sorted(JOIN)), st.data())
def test_clusters_equal_plain_loops(points, linkage, data):
    count = data.draw(st.integers(1, points))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    distances = rng.random((2, points, points))
    distances = distances + distances.transpose(0, 2, 1)
    labels = agglomerate(torch.from_numpy(distances), count, linkage).numpy()
    for image in range(2):
        found = {frozenset(np.flatnonzero(labels[image] == label).tolist()) for label in range(count)}
        assert found == oracle(distances[image], count, linkage)


def counts(model, **wanted):
    return [block.mlp for block in atc_every_layer.METHOD.build(model, AtcEveryLayerSettings(**wanted)).schedule]


def test_the_release_removes_one_token_less_than_asked():
    with torch.device("meta"):
        model = vits.VisionTransformer(embed_dim=16, num_heads=2)
    assert counts(model, r=13)[-1] == 53
    assert counts(model, r=13, one_less=False)[-1] == 41
    assert counts(model, r=16)[-1] == 17
    assert counts(model, r=1) == [197] * 12


@pytest.mark.parametrize("name", ["deit-distilled", "dinov2-registers", "average"])
def test_size_mass_is_conserved_and_prefix_tokens_stay_alone(name):
    model = vits.served(name)
    trace = atc.METHOD.build(model, AtcSettings(keep_rate=0.5, blocks=(1, 2))).trace(vits.images_for(model))
    prefix = model.num_prefix_tokens
    assert trace.size.sum(dim=1).tolist() == [trace.sources[0].shape[1]] * 2
    assert trace.sources[-1][:, :prefix].tolist() == [list(range(prefix))] * 2
    assert (trace.sources[-1][:, prefix:] >= prefix).all()


@pytest.mark.parametrize("wanted", [{"r": 18}, {"per_block": (17,)}, {"r": 6, "one_less": False}])
def test_refuses_to_leave_no_patch(wanted):
    with pytest.raises(BudgetError, match="one must stay") as caught:
        counts(vits.served("vit"), **wanted)
    assert "\n" not in str(caught.value)


def test_refuses_another_linkage():
    with pytest.raises(BudgetError, match="single, complete or average"):
        atc.METHOD.build(vits.served("vit"), AtcSettings(blocks=(1,), linkage="ward"))
