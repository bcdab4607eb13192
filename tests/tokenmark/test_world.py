"""One process alone, and how images are dealt to many."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenmark.measures.accuracy import Accuracy
from tokenmark.measures.codes import Codebook
from tokenmark.measures.pixels import PixelMeasure
from tokenmark.tasks.base import gathered, joined, scatter
from tokenmark.world import World


@given(total=st.integers(0, 300), batch=st.integers(1, 40), size=st.integers(1, 9))
def test_every_batch_is_dealt_once_and_whole(total, batch, size):
    shards = [World(rank, size).shard(total, batch) for rank in range(size)]
    assert [image for start, stop in shards for image in range(start, stop)] == list(range(total))
    for start, stop in shards:
        assert start % batch == 0 or start == total
        assert stop % batch == 0 or stop == total
    batches = [-(-(stop - start) // batch) for start, stop in shards]
    assert max(batches) - min(batches) <= 1


def test_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = World.join()
    assert (world.rank, world.size, world.leads) == (0, 1, True)
    assert world.lead(lambda: 3) == world.together(lambda: 3) == 3
    assert world.collect("state") == ["state"]
    with pytest.raises(ZeroDivisionError):
        world.lead(lambda: 1 // 0)
    world.leave()


@given(cuts=st.lists(st.integers(0, 20), max_size=4), seed=st.integers(0, 100))
def test_shares_join_to_the_state_of_one_process(cuts, seed):
    """Whatever the shares, an empty one included, the joined state is that of one pass."""
    rng = np.random.default_rng(seed)
    right, values = rng.integers(0, 2, 20), rng.random(20)
    counts = rng.integers(0, 9, (20, 4))
    bounds = [0, *sorted(cuts), 20]

    def state_of(start, stop):
        measures = fresh()
        measures["top1"].update(right[start:stop], 1 - right[start:stop])
        measures["psnr"]._values.add(values[start:stop])
        measures["codes"]._counts += counts[start:stop].sum(axis=0)
        measures["codes"]._images += stop - start
        return gathered(measures)

    def fresh():
        return {"top1": Accuracy(paired=True), "psnr": PixelMeasure("psnr"), "codes": Codebook((4,))}

    measures = fresh()
    scatter(measures, joined(measures, [state_of(*pair) for pair in itertools.pairwise(bounds)]))
    whole = state_of(0, 20)
    assert gathered(measures).keys() == whole.keys()
    for name, array in gathered(measures).items():
        assert np.array_equal(array, whole[name]), name
