"""Merging in a grid against plain loops, what unmerging gives back, and the choice of destinations."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impls.layers.grid_matching import grid_destinations, grid_matching, sources_of, unmerge
from reference_impls.layers.reduction import TokenState, merge
from reference_impls.reducers import tomesd
from reference_impls.reducers.tomesd import TomeSDSettings
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError


def oracle(metric, x, grid, cell, choice, r):
    """What every position of one image holds after merging and unmerging."""
    destinations = []
    for i in range(grid[0] // cell[0]):
        for j in range(grid[1] // cell[1]):
            inner = int(choice[i, j] * cell[0] * cell[1])
            destinations.append((i * cell[0] + inner // cell[1]) * grid[1] + j * cell[1] + inner % cell[1])
    destinations.sort()
    unit = metric / np.linalg.norm(metric, axis=1, keepdims=True)
    best = {}
    for source in sorted(set(range(len(x))) - set(destinations)):
        cosines = [unit[source] @ unit[destination] for destination in destinations]
        best[source] = (-max(cosines), source, destinations[int(np.argmax(cosines))])
    groups = {token: [token] for token in range(len(x))}
    for _, source, destination in sorted(best.values())[:r]:
        groups[destination].append(source)
        groups[source] = groups[destination]
    return np.stack([x[groups[token]].mean(axis=0) for token in range(len(x))])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_merging_and_unmerging_equal_plain_loops(data):
    cell = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    grid = data.draw(st.tuples(st.integers(cell[0], 7), st.integers(cell[1], 7)))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    tokens, cells = grid[0] * grid[1], (grid[0] // cell[0], grid[1] // cell[1])
    metric, x, choice = rng.standard_normal((tokens, 4)), rng.standard_normal((tokens, 3)), rng.random(cells)
    destinations = grid_destinations(grid, cell, torch.from_numpy(choice))
    sources = sources_of(tokens, destinations)
    r = data.draw(st.integers(0, len(sources)))
    matching = grid_matching(torch.from_numpy(metric)[None], sources, destinations, r)
    merged = merge(TokenState(torch.from_numpy(x)[None]), matching).x
    assert merged.shape[1] == tokens - r
    np.testing.assert_allclose(unmerge(merged, matching)[0], oracle(metric, x, grid, cell, choice, r), atol=1e-12)


def test_equal_similarities_merge_the_earliest():
    destinations = grid_destinations((4, 4), (2, 2))
    assert destinations.tolist() == [0, 2, 8, 10]
    matching = grid_matching(torch.ones(1, 16, 4), sources_of(16, destinations), destinations, 2)
    assert matching.merged.tolist() == [[1, 3]]
    assert matching.kept[0, matching.into[0]].tolist() == [0, 0]


def test_only_attention_sees_fewer_tokens():
    model = vits.served("oblong")
    reduced = tomesd.METHOD.build(model, TomeSDSettings(ratio=0.4, cell=(2, 2)))
    assert {(block.attention, block.mlp) for block in reduced.schedule} == {(16 - 6, 16)}
    trace = reduced.trace(vits.images_for(model))
    assert all(source.tolist() == [list(range(16))] * 2 for source in trace.sources)


def test_the_seed_and_the_block_choose_the_destinations():
    def destinations(seed, block):
        model = tomesd.METHOD.build(vits.served("vit"), TomeSDSettings(seed=seed))
        return model.reduction.get_buffer(f"destinations{block}").tolist()

    assert destinations(3, 0) == destinations(3, 0)
    assert destinations(3, 0) != destinations(4, 0)
    assert destinations(3, 0) != destinations(3, 1)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"ratio": 0.9}, "0 to 0.75"),
        ({"ratio": -0.1}, "0 to 0.75"),
        ({"ratio": float("nan")}, "0 to 0.75"),
        ({"cell": (5, 1)}, "must fit"),
        ({"cell": (0, 2)}, "must fit"),
    ],
)
def test_refuses_what_cells_cannot_give(wrong, reason):
    with pytest.raises(BudgetError, match=reason) as caught:
        tomesd.METHOD.build(vits.served("vit"), TomeSDSettings(**wrong))
    assert "\n" not in str(caught.value)
