"""Random drop: the choice hangs on the seed alone."""

import torch

from reference_impls.reducers import random_drop
from reference_impls.reducers.random_drop import RandomDropSettings
from tests.reference_impls import vits


def kept(seed, batch, name="vit"):
    """Where the original tokens are after the last block."""
    model = vits.served(name)
    reduced = random_drop.METHOD.build(model, RandomDropSettings(keep_rate=0.5, blocks=(1, 3), seed=seed))
    return reduced.trace(vits.images_for(model, batch)).sources[-1]


def test_the_choice_is_the_same_for_every_image_and_batch():
    assert torch.equal(kept(7, 4), kept(7, 1).expand(4, -1))


def test_another_seed_makes_another_choice():
    assert len({tuple(kept(seed, 1)[0].tolist()) for seed in range(6)}) > 3


def test_every_patch_is_chosen_equally_often():
    model = vits.served("vit")
    counts = torch.zeros(17)
    for seed in range(200):
        reduced = random_drop.METHOD.build(model, RandomDropSettings(keep_rate=0.25, blocks=(1,), seed=seed))
        counts[reduced.reduction.kept1] += 1
    assert counts[0] == 200
    assert counts.sum() == 200 * 5
    assert ((counts[1:] - 50).abs() < 30).all()  # five standard deviations


def test_tokens_stay_in_their_order_behind_the_prefix():
    source = kept(0, 1, "dinov2-registers")[0]
    assert source[source >= 0].tolist() == list(range(5 + 4))
    assert source[:5].tolist() == list(range(5))


def test_the_choice_is_no_part_of_the_state_dict():
    model = vits.served("vit")
    reduced = random_drop.METHOD.build(model, RandomDropSettings(blocks=(1,)))
    assert {key.removeprefix("model.") for key in reduced.state_dict()} == set(model.state_dict())
