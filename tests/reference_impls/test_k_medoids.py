"""Weighted K-medoids against its release's vectors, and its clustering against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impls.reducers import k_medoids
from reference_impls.reducers.k_medoids import KMedoidsSettings, weighted_k_medoids
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError


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
        k_medoids.METHOD.build(vits.served("vit"), KMedoidsSettings(**wrong))
