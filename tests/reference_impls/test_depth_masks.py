"""The mask law of ResGen: counts per position are hypergeometric, and the deepest levels go first."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impls.layers.depth_masks import counts_of_draw, counts_written, hidden, mask_share, masked_after
from tests.reference_impls.latent_generators import seeded
from tokenmark.contracts import MethodError


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.data())
def test_counts_sum_to_what_is_masked_and_the_deepest_go_first(length, levels, data):
    masked = data.draw(st.integers(0, length * levels))
    scores = torch.rand(1, length * levels, generator=seeded(data.draw(st.integers(0, 99)))[0])
    counts = counts_of_draw(scores, torch.tensor([masked]), levels)
    assert counts.shape == (1, length)
    assert int(counts.sum()) == masked
    assert 0 <= int(counts.min()) <= int(counts.max()) <= levels
    for count, row in zip(counts[0].tolist(), hidden(counts, levels)[0].tolist(), strict=True):
        assert row == [False] * (levels - count) + [True] * count


def check_hypergeometric(counts, masked, length, levels):
    """Means, variances and covariances of a multivariate hypergeometric draw, to five standard errors."""
    total, draws, counts = length * levels, len(counts), counts.double()
    variance = masked * (1 / length) * (1 - 1 / length) * (total - masked) / (total - 1)
    covariance = counts.T.cov()
    expected = torch.full((length, length), -variance / (length - 1), dtype=torch.float64).fill_diagonal_(variance)
    assert (counts.mean(0) - masked / length).abs().max() < 5 * (variance / draws) ** 0.5
    assert (covariance - expected).abs().max() < 5 * variance * (3 / draws) ** 0.5


def test_the_mask_law():
    scores = torch.rand(20_000, 4 * 3, generator=seeded(1)[0])
    for masked in (1, 5, 9):
        check_hypergeometric(counts_of_draw(scores, torch.full((20_000,), masked), 3), masked, 4, 3)


def test_unmasking_by_chance_alone_leaves_the_mask_law():
    """In several steps, each of which writes the coarsest masked tokens of the positions that are drawn."""
    counts, masked = torch.full((20_000, 4), 3), 12
    for step, left in enumerate((9, 5, 1)):
        scores = torch.rand(20_000, 4, 3, generator=seeded(2 + step)[0])
        after = counts_written(counts, scores, left, masked)
        assert bool((after <= counts).all())
        assert bool((after.sum(1) == left).all())
        counts, masked = after, left
        check_hypergeometric(counts, masked, 4, 3)


def test_the_surest_positions_are_written_first():
    counts = torch.tensor([[2, 3, 0]])
    confidence = torch.tensor([0.0, -9.0, 99.0])[None, :, None].expand(1, 3, 3)
    assert counts_written(counts, confidence, 4, 5).tolist() == [[1, 3, 0]]
    assert counts_written(counts, confidence, 2, 5).tolist() == [[0, 2, 0]]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.data(), st.sampled_from(["cosine", "arccos"]))
def test_every_step_writes_and_the_last_all(total, data, schedule):
    steps = data.draw(st.integers(1, total))
    left = masked_after(total, steps, schedule)
    assert len(left) == steps
    assert left[-1] == 0
    assert all(before > after for before, after in zip([total, *left], left, strict=False))


def test_schedules():
    assert mask_share(torch.tensor([0.0, 1 / 3, 1.0]).double(), "cosine").tolist() == pytest.approx([1, 0.75**0.5, 0])
    assert mask_share(torch.tensor([0.0, 0.5, 1.0]).double(), "arccos").tolist() == pytest.approx([1, 2 / 3, 0])
    assert masked_after(4096, 63, "cosine")[:3] == [4095, 4091, 4085]
    assert masked_after(4096, 63, "cosine")[20] == 3548  # a third of the way: 4096 times the root of 3/4, rounded up
    assert masked_after(12, 2, "arccos") == [8, 0]
    with pytest.raises(MethodError, match="at most the 12 tokens"):
        masked_after(12, 13, "cosine")
