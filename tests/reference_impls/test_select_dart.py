"""DART's selection against plain loops, and its pivots."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impls.reducers import select_dart
from reference_impls.reducers.select_dart import DartSettings, pivots_and_unlike
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError


def oracle(norms, points, pivots, count):
    """The kept tokens of one image: pivots by falling norm, then turn by turn the least similar."""
    kept = sorted(range(len(norms)), key=lambda i: (-norms[i], i))[:pivots]
    left = [i for i in range(len(norms)) if i not in kept]
    for turn, pivot in enumerate(list(kept)):

        def cosine(i, pivot=pivot):
            return points[i] @ points[pivot] / np.linalg.norm(points[i]) / np.linalg.norm(points[pivot])

        share = (count - pivots) // pivots + (turn < (count - pivots) % pivots)
        for _ in range(share):
            least = min(left, key=lambda i: (cosine(i), i))
            kept.append(least)
            left.remove(least)
    return kept


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 24), st.data())
def test_keeps_what_plain_loops_keep(tokens, data):
    count = data.draw(st.integers(1, tokens))
    pivots = data.draw(st.integers(1, count))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    points, norms = rng.standard_normal((2, tokens, 3)), rng.random((2, tokens))
    got = pivots_and_unlike(torch.from_numpy(norms), torch.from_numpy(points), pivots, count)
    assert got.tolist() == [oracle(norms[i], points[i], pivots, count) for i in range(2)]


def test_pivots_have_the_largest_keys():
    model = vits.served("vit")
    reduced = select_dart.METHOD.build(model, DartSettings(keep_rate=0.25, block=0, pivots=4))
    images = vits.images_for(model)
    with torch.no_grad():
        x = model.blocks[0].norm1(reduced._embed(images).x)
        keys = model.blocks[0].attn.qkv(x)[:, 1:, 32:64]
        source = reduced.trace(images).sources[0]
    largest = keys.abs().sum(dim=2).topk(4, dim=1).indices.sort(dim=1).values
    assert [[i for i, at in enumerate(each) if at > 0] for each in source.tolist()] == (1 + largest).tolist()


@pytest.mark.parametrize("pivots", [0, -1, 9])
def test_refuses_pivots_that_are_none_or_more_than_are_kept(pivots):
    with pytest.raises(BudgetError, match="within 1 to 8"):
        select_dart.METHOD.build(vits.served("vit"), DartSettings(block=1, pivots=pivots))
