"""DPC-KNN against plain loops, and what its clusters must hold."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impls.reducers.dpcknn import METHOD, ClusterWeights, DpcKnnSettings, density_peaks, mix_clusters
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError


def oracle(points, k, neighbours):
    """Peaks and clusters of one image by plain loops."""
    distance = np.linalg.norm(points[:, None] - points[None], axis=2) / points.shape[1] ** 0.5
    density = [np.exp(-np.mean(np.sort(row)[:neighbours] ** 2)) for row in distance]
    every = range(len(points))
    gap = [min((distance[i, j] for j in every if density[j] > density[i]), default=distance.max()) for i in every]
    peaks = sorted(every, key=lambda i: (-density[i] * gap[i], i))[:k]
    nearest = [min(range(k), key=lambda c: (distance[i, peaks[c]], c)) for i in every]
    return peaks, [peaks.index(i) if i in peaks else nearest[i] for i in every]


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 20), st.data())
def test_clustering_equals_plain_loops(tokens, data):
    k, neighbours = data.draw(st.integers(1, tokens)), data.draw(st.integers(1, tokens))
    points = np.random.default_rng(data.draw(st.integers(0, 10**6))).standard_normal((2, tokens, 3))
    peaks, cluster = density_peaks(torch.from_numpy(points), k, neighbours)
    for image in range(2):
        expected = oracle(points[image], k, neighbours)
        # With every point a neighbour of all, densities may tie but for rounding.
        if neighbours < tokens:
            assert (peaks[image].tolist(), cluster[image].tolist()) == expected


def test_equal_points_leave_no_cluster_empty():
    peaks, cluster = density_peaks(torch.ones(1, 6, 4), 3, 2)
    assert peaks.tolist() == [[0, 1, 2]]
    assert cluster.tolist() == [[0, 1, 2, 0, 0, 0]]


def test_equal_weights_give_the_mean_and_a_score_of_its_own_moves_it():
    x, cluster = torch.arange(8.0).reshape(1, 4, 2), torch.tensor([[0, 1, 1, 0]])
    torch.testing.assert_close(mix_clusters(x, torch.ones(1, 4), cluster, 2), torch.tensor([[[3.0, 4], [3, 4]]]))
    moved = mix_clusters(x, torch.tensor([[1.0, 3, 1, 0]]), cluster, 2)
    torch.testing.assert_close(moved, torch.tensor([[[0.0, 1], [2.5, 3.5]]]), atol=1e-5, rtol=1e-5)


def test_a_cluster_has_the_place_of_its_peak():
    """Where blocks look at places, with clusters of one patch each, only the order of the patches changes."""
    model = vits.served("eva02")
    images = vits.images_for(model)
    shuffled = METHOD.build(model, DpcKnnSettings(keep_rate=1.0, blocks=(1,), equal_weight=True)).reduction
    shuffled.shrinks_before = lambda block: block == 1
    reduced = METHOD.build(model, DpcKnnSettings(keep_rate=1.0, blocks=(1,), equal_weight=True))
    reduced.reduction = shuffled
    torch.testing.assert_close(reduced(images), model(images), rtol=1e-4, atol=1e-4)
    assert not torch.equal(reduced.trace(images).sources[1], reduced.trace(images).sources[0])


@pytest.mark.parametrize("wrong", [0, 17])
def test_refuses_neighbours_that_are_not_there(wrong):
    with pytest.raises(BudgetError, match="must be 1 to 16"):
        METHOD.build(vits.served("vit"), DpcKnnSettings(blocks=(1,), neighbours=wrong))


def test_gradients_are_right_and_reach_the_scores():
    weights, x = ClusterWeights(3).double(), torch.rand(1, 4, 3).double().requires_grad_()
    cluster = torch.tensor([[0, 1, 1, 0]])
    assert torch.autograd.gradcheck(lambda x: mix_clusters(x, weights(x), cluster, 2), (x,))
    reduced = METHOD.build(vits.served("vit").train(), DpcKnnSettings(blocks=(1, 2)))
    reduced(vits.images_for(reduced.model)).square().sum().backward()
    # A score's bias scales all weights alike: next to nothing of it is left.
    assert all(each.grad is not None and each.grad.any() for each in reduced.reduction.parameters())
