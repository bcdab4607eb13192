"""FoPru's selection: by rank and by row, against plain loops."""

import pytest
import torch

from reference_impls.layers.vit_attention import Attended
from reference_impls.reducers import select_fopru
from reference_impls.reducers.select_fopru import FoPruSettings
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError


def chosen(settings, rows, name):
    """What the rule keeps of a block's attention `rows`."""
    reduction = select_fopru.METHOD.build(vits.served(name), settings).reduction
    nothing = torch.zeros(0)
    return reduction.choose(None, Attended(nothing, nothing, nothing, 1.0, None, rows)).tolist()


def attention(tokens):
    return torch.rand(3, 2, tokens, tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def received(rows, image, token):
    """Over every head and query, one by one."""
    return sum(rows[image, head, query, token].item() for head in range(2) for query in range(rows.shape[2]))


def test_rank_keeps_the_patches_that_receive_most():
    rows = attention(21)  # class token, 4 registers, 4 by 4 patches
    got = chosen(FoPruSettings(keep_rate=0.6, block=1), rows, "dinov2-registers")
    for image in range(3):
        score = [received(rows, image, 5 + patch) for patch in range(16)]
        assert got[image] == sorted(range(16), key=lambda patch, score=score: -score[patch])[:9]


def test_row_keeps_the_whole_rows_that_receive_most():
    rows = attention(16)  # class token, 3 by 5 patches
    got = chosen(FoPruSettings(keep_rate=0.7, block=1, strategy="row"), rows, "oblong")
    for image in range(3):
        score = [sum(received(rows, image, 1 + 5 * row + column) for column in range(5)) for row in range(3)]
        best = sorted(range(3), key=lambda row, score=score: -score[row])[:2]
        assert got[image] == [5 * row + column for row in best for column in range(5)]


def test_row_counts_whole_rows():
    reduced = select_fopru.METHOD.build(vits.served("oblong"), FoPruSettings(0.7, 1, "row"))
    assert [block.mlp for block in reduced.schedule] == [16, 11, 11, 11]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"keep_rate": 0.2, "strategy": "row"}, r"no whole row of 4: the least that fits is 0\.250"),
        ({"strategy": "column"}, "rank or row"),
    ],
)
def test_refuses_less_than_a_row_and_other_strategies(wrong, reason):
    with pytest.raises(BudgetError, match=reason):
        select_fopru.METHOD.build(vits.served("vit"), FoPruSettings(**wrong))


def test_serves_models_without_a_class_token():
    model = vits.served("siglip")
    trace = select_fopru.METHOD.build(model, FoPruSettings(0.5, 1)).trace(vits.images_for(model))
    assert trace.tokens[-1].shape[1] == 8
