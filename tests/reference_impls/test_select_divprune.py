"""DivPrune's selection against plain loops, and on copies."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impls.layers.matching import cosines
from reference_impls.reducers.select_divprune import farthest_points


def oracle(points, count):
    """The picked points of one image, one by one."""
    lengths = np.linalg.norm(points, axis=1)
    distance = 1 - points @ points.T / np.outer(lengths, lengths)
    tokens = range(len(points))
    picked = [max(tokens, key=lambda i: (min(distance[i][j] for j in tokens if j != i), -i))]
    while len(picked) < count:
        rest = [i for i in tokens if i not in picked]
        picked.append(max(rest, key=lambda i: (min(distance[i][j] for j in picked), -i)))
    return picked


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 20), st.data())
def test_picks_what_plain_loops_pick(tokens, data):
    count = data.draw(st.integers(1, tokens))
    points = np.random.default_rng(data.draw(st.integers(0, 10**6))).standard_normal((2, tokens, 3))
    x = torch.from_numpy(points)
    assert farthest_points(1 - cosines(x, x), count).tolist() == [oracle(image, count) for image in points]


def test_copies_are_picked_last_and_each_once():
    points = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [-1.0, 0.0]])[None]
    assert farthest_points(1 - cosines(points, points), 5)[0].tolist() == [2, 0, 4, 1, 3]
