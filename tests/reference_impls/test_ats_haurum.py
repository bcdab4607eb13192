"""ATS as Haurum et al. run it: sampling against plain loops, and rows that fill up and change nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impls.reducers.ats_haurum import METHOD, AtsHaurumSettings, sampled, samples
from tests.reference_impls import vits


def oracle(score, steps):
    """The patches that one image keeps, by plain loops."""
    running = np.cumsum(score / (score.sum() + 1e-6))
    points = np.arange(1 / (2 * steps), (2 * steps - 1) / (2 * steps), 2 / (2 * steps))
    return sorted({min(range(len(score)), key=lambda i, at=at: (abs(running[i] - at), i)) for at in points})


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(2, 40), st.integers(0, 10**6))
def test_sampling_equals_plain_loops(tokens, steps, seed):
    score = np.random.default_rng(seed).random((2, tokens)) ** 4
    kept = sampled(torch.from_numpy(score), steps)
    for image in range(2):
        assert kept[image].nonzero().flatten().tolist() == oracle(score[image], steps)


def test_as_many_samples_as_the_release_rounds_to():
    with_as_many = [steps for steps in range(2, 40) if samples(steps) == steps]
    assert with_as_many == [3, 7, 12, 14, 19, 27, 34, 35, 36, 39]
    for steps in range(2, 400):
        points = torch.arange(1 / (2 * steps), (2 * steps - 1) / (2 * steps), 2 / (2 * steps), dtype=torch.float64)
        assert samples(steps) == len(points)


def test_a_row_that_fills_up_is_never_sampled():
    dead = torch.tensor([[False, False, True, True]])
    assert sampled(torch.tensor([[1.0, 2.0, 0.0, 0.0]]), 9, dead).tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("name", ["vit", "average-beside-class", "maximum", "eva02", "dinov2-registers"])
def test_rows_that_fill_up_change_nothing(name):
    """An image alone, trimmed, has no such row."""
    model = vits.served(name)
    images = vits.images_for(model, 4)
    whole = METHOD.build(model, AtsHaurumSettings(keep_rate=0.9, blocks=(0, 2)))
    trimmed = METHOD.build(model, AtsHaurumSettings(keep_rate=0.9, blocks=(0, 2), trim=True))
    with torch.no_grad():
        assert len(whole.counts(images)[:, -1, 1].unique()) > 1
        alone = torch.cat([trimmed(image[None]) for image in images])
        torch.testing.assert_close(whole(images), alone, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(trimmed(images), alone, rtol=1e-9, atol=1e-9)
        assert torch.equal(whole.counts(images), trimmed.counts(images))
        assert trimmed(images[:0]).shape == (0, 5)
