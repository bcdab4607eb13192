"""HiRED's selection: the budgets of partitions and their best patches, against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impls.reducers import select_hired
from reference_impls.reducers.select_hired import HiRedSettings, best_per_partition, partition_of
from tests.reference_impls import vits
from tests.reference_impls.test_select_vtc_cls import class_rows
from tokenmark.contracts import BudgetError


def oracle(content, score, part, count):
    """The kept patches of one image: seats one by one, then the best of each partition."""
    partitions = range(len(content))
    members = [sorted((i for i, at in enumerate(part) if at == p), key=lambda i: -score[i]) for p in partitions]
    seats = [0] * len(content)
    for _ in range(count):
        open_ = [p for p in partitions if seats[p] < len(members[p])]
        seats[max(open_, key=lambda p: content[p] / (2 * seats[p] + 1))] += 1
    return {patch for p in partitions for patch in members[p][: seats[p]]}


@settings(max_examples=40, deadline=None)
@given(st.tuples(st.integers(1, 6), st.integers(1, 6)), st.data())
def test_keeps_what_plain_loops_keep(grid, data):
    partitions = data.draw(st.integers(1, grid[0])), data.draw(st.integers(1, grid[1]))
    count = data.draw(st.integers(1, grid[0] * grid[1]))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    part = partition_of(grid, partitions)
    content, score = rng.random((2, partitions[0] * partitions[1])) ** 4, rng.random((2, grid[0] * grid[1]))
    got = best_per_partition(torch.from_numpy(content), torch.from_numpy(score), part, count)
    assert got.shape == (2, count)
    for image in range(2):
        assert set(got[image].tolist()) == oracle(content[image], score[image], part.tolist(), count)


def test_an_empty_partition_gets_nothing_and_a_full_one_no_more_than_it_has():
    part = partition_of((4, 4), (2, 2))
    score = torch.rand(1, 16, generator=torch.Generator().manual_seed(0))
    got = best_per_partition(torch.tensor([[0.98, 0.02, 0.0, 0.0]]), score, part, 6)[0]
    assert part[got].bincount(minlength=4).tolist() == [4, 2, 0, 0]


def test_partitions_are_as_even_as_can_be():
    assert partition_of((3, 5), (2, 2)).unflatten(0, (3, 5)).tolist() == [[0, 0, 0, 1, 1]] * 2 + [[2, 2, 2, 3, 3]]
    assert partition_of((14, 14), (2, 2)).bincount().tolist() == [49] * 4


def test_content_is_of_the_early_block_and_patches_of_the_pruning_one():
    model = vits.served("vit")
    images = vits.images_for(model, 4)
    with torch.no_grad():
        rows = class_rows(model, images)
        reduced = select_hired.METHOD.build(model, HiRedSettings(keep_rate=0.4, block=2, content_block=1))
        source = reduced.trace(images).sources[-1].tolist()
    part = partition_of((4, 4), (2, 2)).tolist()
    for image in range(4):
        early, late = (rows[block][image, 1:].tolist() for block in (1, 2))
        content = [sum(value for value, at in zip(early, part, strict=True) if at == p) for p in range(4)]
        kept = {token - 1 for token, at in enumerate(source[image]) if at > 0}
        assert kept == oracle(content, late, part, 6)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"content_block": 3}, "0 to 2"),
        ({"content_block": -1}, "0 to 2"),
        ({"partitions": (0, 2)}, "from 1 by 1 to 4 by 4"),
        ({"partitions": (2, 5)}, "from 1 by 1 to 4 by 4"),
    ],
)
def test_refuses_what_cannot_be_divided(wrong, reason):
    with pytest.raises(BudgetError, match=reason):
        select_hired.METHOD.build(vits.served("vit"), HiRedSettings(block=2, **wrong))
