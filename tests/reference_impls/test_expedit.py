"""Local clustering and reconstruction against plain loops, and the blocks between them."""

import numpy as np
import pytest
import torch

from reference_impls.layers.local_clustering import cluster, home_cells, initial_centroids, reconstruction_weights
from reference_impls.reducers import expedit
from reference_impls.reducers.expedit import ExpeditSettings
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError


def oracle(patches, start, home, clusters, window, iterations, temperature):
    """Centroids of one image by plain loops."""
    centroids = start.copy()
    cells = [(row, column) for row in range(clusters[0]) for column in range(clusters[1])]
    for _ in range(iterations):
        shares = np.zeros((len(patches), len(cells)))
        for patch, own in enumerate(home):
            near = [
                i for i, cell in enumerate(cells) if max(abs(cell[0] - own[0]), abs(cell[1] - own[1])) <= window // 2
            ]
            weights = np.exp([-temperature * ((patches[patch] - centroids[i]) ** 2).sum() for i in near])
            shares[patch, near] = weights / weights.sum()
        centroids = (shares.T @ patches) / shares.sum(axis=0)[:, None]
    return centroids


@pytest.mark.parametrize(
    ("grid", "clusters", "window", "iterations"),
    [((6, 6), (3, 3), 1, 2), ((5, 7), (2, 4), 3, 3), ((4, 9), (4, 2), 5, 1), ((5, 4), (3, 2), 3, 0)],
)
def test_clustering_equals_plain_loops(grid, clusters, window, iterations):
    rng = np.random.default_rng(0)
    patches = rng.standard_normal((2, grid[0] * grid[1], 3))
    given = torch.from_numpy(patches)
    got = cluster(given, grid, clusters, window=window, iterations=iterations, temperature=0.7)
    start, home = initial_centroids(given, grid, clusters).numpy(), home_cells(grid, clusters).numpy()
    for image in range(2):
        expected = oracle(patches[image], start[image], home, clusters, window, iterations, 0.7)
        np.testing.assert_allclose(got[image], expected, atol=1e-12)


def test_patches_read_their_nearest_clusters_and_all_that_tie():
    patches = torch.zeros(1, 1, 2, dtype=torch.float64)
    centroids = torch.tensor([[[3.0, 0.0], [0.0, 1.0], [1.0, 0.0], [2.0, 0.0]]], dtype=torch.float64)
    weights = reconstruction_weights(patches, centroids, 1, 0.5)
    torch.testing.assert_close(weights[0, 0], torch.tensor([0.0, 0.5, 0.5, 0.0], dtype=torch.float64).sqrt())
    every = torch.exp(-0.5 * torch.tensor([9.0, 1.0, 1.0, 4.0], dtype=torch.float64))
    for k in (-1, 4, 9):
        torch.testing.assert_close(reconstruction_weights(patches, centroids, k, 0.5)[0, 0], every / every.norm())


def test_far_patches_still_read():
    weights = reconstruction_weights(torch.full((1, 1, 1), 1e3), torch.zeros(1, 2, 1), -1, 1.0)
    assert weights[0, 0].tolist() == pytest.approx([0.5**0.5] * 2)


def test_clusters_stand_in_between_the_blocks_alone():
    model = vits.served("oblong")
    reduced = expedit.METHOD.build(model, ExpeditSettings(keep_rate=0.5, start=1, stop=3, window=3))
    assert [block.attention for block in reduced.schedule] == [16, 1 + 2 * 3, 1 + 2 * 3, 16]
    trace = reduced.trace(vits.images_for(model))
    assert [len(set(source[0].tolist())) <= 7 for source in trace.sources] == [False, True, False, False]
    assert torch.equal(trace.sources[2][0], torch.arange(16))


def test_default_ends_behind_the_last_block():
    with torch.device("meta"):
        model = vits.VisionTransformer(embed_dim=16, num_heads=2)
    schedule = expedit.METHOD.build(model, ExpeditSettings(keep_rate=0.25)).schedule
    assert [block.mlp for block in schedule] == [197] * 5 + [1 + 49] * 7


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"keep_rate": 0.0}, "0.0625 to 1"),
        ({"keep_rate": 0.05}, "0.0625 to 1"),
        ({"keep_rate": 1.5}, "0.0625 to 1"),
        ({"keep_rate": float("nan")}, "0.0625 to 1"),
        ({"start": 4}, "must rise within 0 to 4"),
        ({"start": 1, "stop": 5}, "must rise within 0 to 4"),
        ({"start": 2, "stop": 2}, "must rise within 0 to 4"),
        ({"start": 1, "window": 4}, "must be odd"),
        ({"start": 1, "iterations": -1}, "not negative"),
        ({"start": 1, "read": 0}, "not 0"),
    ],
)
def test_refuses_what_it_cannot_cluster(wrong, reason):
    with pytest.raises(BudgetError, match=reason) as caught:
        expedit.METHOD.build(vits.served("vit"), ExpeditSettings(**wrong))
    assert "\n" not in str(caught.value)
