"""Samples that are kept: whole, in their place, whatever the order of batches and however often one is killed."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmark.errors import StorageError
from tokenmark.kept import Keep, Kept

SIDE = 4


def samples(start, stop):
    """Images whose every pixel is their index, and labels of them."""
    index = torch.arange(start, stop)
    return (index / 255).view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE), index % 7


def held(path):
    with np.load(path, allow_pickle=False) as file:
        return file["arr_0"], file["arr_1"]


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 40), max_size=6), n=st.integers(1, 50), order=st.randoms(use_true_random=False))
def test_every_order_of_batches_gives_the_same_file(tmp_path_factory, cuts, n, order):
    folder = tmp_path_factory.mktemp("kept")
    edges = sorted({0, 40, *cuts})
    batches = list(itertools.pairwise(edges))
    order.shuffle(batches)
    for start, stop in batches:
        Kept(Keep(n, folder), "run", 40).add(start, *samples(start, stop))  # anew each time, as after a kill
    kept = Kept(Keep(n, folder), "run", 40)
    assert kept.n == min(n, 40)
    assert kept.missing() == []
    assert not kept.done
    images, labels = held(kept.finish())
    assert images.shape == (kept.n, SIDE, SIDE, 3)
    assert images.dtype == np.uint8
    assert (images == np.arange(kept.n)[:, None, None, None]).all()
    assert labels.tolist() == [index % 7 for index in range(kept.n)]
    assert [path.name for path in folder.iterdir()] == ["run.npz"]
    assert kept.done


def test_what_is_missing_is_known_and_more_may_be_asked_for_later(tmp_path):
    kept = Kept(Keep(6, tmp_path), "run", 100)
    assert kept.missing() == [0, 1, 2, 3, 4, 5]
    kept.add(2, *samples(2, 4))
    assert Kept(Keep(6, tmp_path), "run", 100).missing() == [0, 1, 4, 5]
    assert Kept(Keep(8, tmp_path), "run", 100).missing() == [0, 1, 4, 5, 6, 7]
    kept.add(6, *samples(6, 9))  # beyond what is wanted: nothing
    assert Kept(Keep(8, tmp_path), "run", 100).missing() == [0, 1, 4, 5, 6, 7]
    kept.add(0, *samples(0, 6))
    kept.finish()
    assert not Kept(Keep(8, tmp_path), "run", 100).done
    assert not Kept(Keep(6, tmp_path), "other", 100).done


def test_a_damaged_file_is_made_again(tmp_path):
    kept = Kept(Keep(2, tmp_path), "run", 2)
    kept.path.write_bytes(b"PK")
    assert not kept.done
    kept.add(0, *samples(0, 2))
    assert len(held(kept.finish())[0]) == 2


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*file"):
        Kept(Keep(2, tmp_path / "file"), "run", 2).add(0, *samples(0, 2))
