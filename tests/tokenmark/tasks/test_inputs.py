"""Where images come from."""

import pytest
import torch

from tests.tokenmark import make
from tokenmark.errors import DataError
from tokenmark.tasks.inputs import Noise, filled, inputs_of

CPU = torch.device("cpu")


def test_noise_is_of_the_seed_and_the_place():
    noise = Noise((3, 4, 6), seed=1)
    images, labels = noise.batch(0, 50, CPU)
    assert images.shape == (50, 3, 4, 6)
    assert (images.dtype, labels.dtype, labels.shape) == (torch.float32, torch.int64, (50,))
    assert 0 <= images.min() < 0.01
    assert 0.99 < images.max() < 1
    assert torch.equal(images, noise.batch(0, 50, CPU)[0])
    for other in (Noise((3, 4, 6), seed=2), Noise((3, 4, 6), seed=0)):
        assert not torch.equal(images, other.batch(0, 50, CPU)[0])
    assert not torch.equal(images, noise.batch(50, 100, CPU)[0])


def test_a_protocol_without_data_gives_noise_of_the_models_shape(context):
    spec = make.spec(task="classification", protocol="throughput", seed=5)
    assert inputs_of(spec, (3, 8, 8), context) == Noise((3, 8, 8), 5)
    assert len(inputs_of(make.spec(task="classification"), (3, 32, 32), context)) == 500


def test_images_of_another_size_than_the_models(context):
    with pytest.raises(DataError, match="q50 takes images of 8 x 8 px, but digits-32 has 32 x 32"):
        inputs_of(make.spec(task="classification"), (3, 8, 8), context)


def test_a_batch_larger_than_the_data_repeats_them(context):
    digits = inputs_of(make.spec(task="classification"), (3, 32, 32), context)
    images = filled(digits, 1203, CPU)
    assert images.shape == (1203, 3, 32, 32)
    assert torch.equal(images[:500], images[500:1000])
    assert torch.equal(images[1000:], images[:203])
    assert torch.equal(filled(digits, 7, CPU), digits.batch(0, 7, CPU)[0])
