"""Weighted K-medoids against its release's vectors, and its clustering against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impls.reducers import k_medoids
from reference_impls.reducers.k_medoids import KMedoidsSettings, nearest_medoid, weighted_k_medoids
from tests import vector_case
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError


@pytest.mark.parametrize(("name", "attention"), [("kr50", "fused"), ("kr50", "eager"), ("list", "fused")])
def test_equals_the_release(name, attention, monkeypatch):
    vector = vector_case.load(f"k-medoids__{name}")
    config = vector["config"]
    blocks = tuple(config["reduction_loc"])
    asked = KMedoidsSettings(vits.keep_rate_of(vector), blocks, config["cluster_iters"])
    reduced = k_medoids.build(vits.of_vector(vector), asked, attention=attention)
    clusterings = []

    def spy(points, weights, k, iterations):
        medoids = weighted_k_medoids(points, weights, k, iterations)
        clusterings.append((points, medoids))
        return medoids

    monkeypatch.setattr(k_medoids, "weighted_k_medoids", spy)
    found = vits.outputs(reduced, vector_case.inputs(vector)["image"])
    for block, (points, medoids) in zip(blocks, clusterings, strict=True):
        found[f"kept{block}"] = medoids
        found[f"centers{block}"] = points.gather(1, medoids[..., None].expand(-1, -1, points.shape[2]))
        found[f"assignment{block}"] = nearest_medoid(points, medoids)
        traced = vits.step_map(found, block, points.shape[1] + 1)[:, 1:] - 1
        alive = traced >= 0
        assert torch.equal(traced[alive], found[f"assignment{block}"][alive])
    vector_case.check(vector, **{key: found[key] for key in vector["outputs"]})
    assert [block.mlp for block in reduced.schedule] == found["tokens_per_block"].tolist()


def oracle(points, weights, k, iterations):
    """Medoids of one image by plain loops."""
    medoids = sorted(range(len(points)), key=lambda i: (-weights[i], i))[:k]
    distance = np.linalg.norm(points[:, None] - points[None], axis=2)
    for _ in range(iterations):
        member = [min(range(k), key=lambda c: (distance[i, medoids[c]], c)) for i in range(len(points))]
        for cluster in range(k):
            own = [i for i in range(len(points)) if member[i] == cluster]
            medoids[cluster] = min(own, key=lambda i: (weights[i] * distance[i].sum(), i), default=medoids[cluster])
    return medoids


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 30), st.data())
def test_clustering_equals_plain_loops(tokens, data):
    k, iterations = data.draw(st.integers(1, tokens)), data.draw(st.integers(0, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    points, weights = rng.standard_normal((2, tokens, 3)), rng.random((2, tokens))
    got = weighted_k_medoids(torch.from_numpy(points), torch.from_numpy(weights), k, iterations)
    assert got.tolist() == [oracle(points[i], weights[i], k, iterations) for i in range(2)]


def test_equal_points_keep_their_medoids():
    """All clusters but the first are empty, and must not all collapse onto token 0."""
    assert weighted_k_medoids(torch.ones(1, 30, 4), torch.arange(30.0)[None], 3, 2)[0, 1:].tolist() == [28, 27]


@pytest.mark.parametrize("wrong", [{"blocks": (0, 2)}, {"blocks": (1,), "iterations": -1}])
def test_refuses_what_it_cannot_weigh_or_iterate(wrong):
    with pytest.raises(BudgetError):
        k_medoids.build(vits.served("vit"), KMedoidsSettings(**wrong))
