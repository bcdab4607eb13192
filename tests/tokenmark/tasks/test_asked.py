"""Which classes samples are asked for, and of whose noise they are."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenmark import protocols
from tokenmark.errors import DataError
from tokenmark.tasks.asked import labels_of, noise_of, order_of


@given(
    order=st.sampled_from(["cycled", "sorted", "random"]),
    classes=st.integers(1, 12),
    times=st.integers(1, 6),
    cut=st.integers(0, 72),
)
def test_a_share_of_the_labels_is_that_of_the_whole(order, classes, times, cut):
    samples = classes * times
    cut = min(cut, samples)
    whole = labels_of(order, classes, 3, 0, samples, samples)
    parts = [labels_of(order, classes, 3, 0, cut, samples), labels_of(order, classes, 3, cut, samples, samples)]
    assert torch.cat(parts).tolist() == whole.tolist()
    assert set(whole.tolist()) <= set(range(classes))
    if order != "random":
        assert Counter(whole.tolist()) == dict.fromkeys(range(classes), times)
    if order == "sorted":
        assert whole.tolist() == sorted(whole.tolist())


def test_orders():
    assert labels_of("cycled", 3, 0, 1, 6, 6).tolist() == [1, 2, 0, 1, 2]
    assert labels_of("sorted", 3, 0, 0, 6, 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert labels_of("sorted", 1000, 0, 49_999, 50_000, 50_000).tolist() == [999]
    one, other = (labels_of("random", 1000, seed, 0, 50, 50).tolist() for seed in (1, 2))
    assert one != other


def test_the_preset_decides_before_the_protocol():
    mini = protocols.get("mini")
    assert order_of(mini, "") == "cycled"
    assert order_of(mini, "random") == "random"
    assert order_of(protocols.get("adm-train").but(class_sampling="random"), "") == "random"
    with pytest.raises(DataError, match="says no classes to sample"):
        order_of(protocols.get("pytorch-fid"), "")


def test_noise_is_of_the_seed_and_the_index_alone():
    drawn = {
        tuple(torch.rand(3, generator=noise_of(seed, index)).tolist()) for seed in range(20) for index in range(20)
    }
    assert len(drawn) == 400
    assert torch.equal(torch.rand(3, generator=noise_of(5, 7)), torch.rand(3, generator=noise_of(5, 7)))
