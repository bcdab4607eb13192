"""8-bit rules: by hand, against numpy's integers, and where they part."""

import numpy as np
import pytest
import torch

from tokenmark.quantise import RULES, quantised

LEVELS = torch.arange(256) / 255.0


def levels(images, rule):
    return (quantised(images, rule) * 255.0).round().int().tolist()


@pytest.mark.parametrize("rule", RULES)
def test_grey_levels_stay(rule):
    assert levels(LEVELS, rule) == list(range(256))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("round", [0, 0, 1, 2, 2, 255, 255]),
        ("half-up", [0, 0, 1, 2, 3, 255, 255]),
        ("truncate", [0, 0, 0, 1, 2, 254, 255]),
    ],
)
def test_by_hand(rule, expected):
    """Ties go to the even level, up, and down; whatever is outside comes in."""
    images = torch.tensor([-9.0, 0.4, 0.6, 1.5, 2.5, 254.6, 300.0], dtype=torch.float64) / 255.0
    found = RULES[rule](images.clamp(0.0, 1.0))
    assert found.tolist() == expected


def test_as_numpy_does_it():
    images = np.random.default_rng(0).uniform(0, 1, 10_000).astype(np.float32)
    found = torch.from_numpy(images)
    assert levels(found, "truncate") == (images * np.float32(255)).astype(np.uint8).tolist()
    assert levels(found, "round") == np.rint(images * np.float32(255)).astype(np.uint8).tolist()
    signed = np.float32(2) * images - np.float32(1)
    assert levels(found, "half-up") == (np.float32(127.5) * signed + np.float32(128)).astype(np.uint8).tolist()


def test_cutting_off_darkens_by_half_a_level():
    images = torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    shift = (quantised(images, "truncate") - images).mean() * 255
    assert shift == pytest.approx(-0.5, abs=0.01)
    assert (quantised(images, "round") - images).mean() * 255 == pytest.approx(0.0, abs=0.01)


def test_none_only_clamps():
    images = torch.tensor([-0.1, 0.1234, 1.1])
    assert torch.equal(quantised(images, "none"), images.clamp(0, 1))
