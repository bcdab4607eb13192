"""Crop rules against torchvision, numpy and Pillow's own resize, on pictures of all sizes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from tests.tokenmark.data.made_imagenet import pixels
from tokenmark.data.crops import CROPS

SIZES = [
    (64, 64),
    (65, 64),
    (64, 67),
    (131, 90),
    (90, 301),
    (33, 20),
    (7, 90),
    (500, 375),
    (64, 63),
    (63, 64),
    (128, 200),
]
SIDE = 32


def picture(width, height):
    return Image.fromarray(pixels(width * 1000 + height, width, height))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("rule", "filter_"), [("bicubic", v2.InterpolationMode.BICUBIC), ("lanczos", v2.InterpolationMode.LANCZOS)]
)
@pytest.mark.parametrize("side", [SIDE, 63])
def test_resizing_rules_are_torchvision_s(size, rule, filter_, side):
    """TiTok's transform, on Pillow pictures: Resize of the short side, then CenterCrop."""
    image = picture(*size)
    expected = v2.CenterCrop(side)(v2.Resize(side, interpolation=filter_, antialias=True)(image))
    assert (CROPS[rule].apply(image, side) == np.asarray(expected)).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 60))
def test_the_centre_is_torchvision_s(width, height, side):
    """Also where the picture is smaller than the square, and black stands around it."""
    image = picture(width, height)
    assert (CROPS["centre-only"].apply(image, side) == np.asarray(v2.CenterCrop(side)(image))).all()


def halved(array):
    """The mean of two neighbours in a row, then of two in a column, each rounded half up; for even sizes."""
    array = (array[:, 0::2].astype(int) + array[:, 1::2] + 1) // 2
    return ((array[0::2] + array[1::2] + 1) // 2).astype(np.uint8)


@pytest.mark.parametrize(("size", "times"), [((64, 48), 0), ((128, 64), 1), ((256, 132), 2), ((512, 256), 3)])
def test_adm_halves_by_mean_and_then_takes_bicubic(size, times):
    array = np.asarray(picture(*size))
    expected = array
    for _ in range(times):
        expected = halved(expected)
    height, width = expected.shape[:2]
    scale = SIDE / min(width, height)
    resized = np.asarray(Image.fromarray(expected).resize((round(width * scale), round(height * scale)), 3))
    top, left = (resized.shape[0] - SIDE) // 2, (resized.shape[1] - SIDE) // 2
    expected = resized[top : top + SIDE, left : left + SIDE]
    assert (CROPS["adm"].apply(Image.fromarray(array), SIDE) == expected).all()


def test_adm_starts_halving_at_twice_the_side():
    """One pixel less, and the picture goes through bicubic alone."""
    below, at = picture(2 * SIDE, 2 * SIDE - 1), picture(2 * SIDE, 2 * SIDE)
    straight = below.resize((round(2 * SIDE * SIDE / (2 * SIDE - 1)), SIDE), 3)
    left = (straight.width - SIDE) // 2
    assert (CROPS["adm"].apply(below, SIDE) == np.asarray(straight)[:, left : left + SIDE]).all()
    assert (CROPS["adm"].apply(at, SIDE) != np.asarray(at.resize((SIDE, SIDE), 3))).any()


def test_rounding_tells_the_rules_apart():
    """A long side of 32 * 95 / 61 = 49.8 is rounded by guided diffusion, and cut by torchvision."""
    image = picture(95, 61)
    adm, bicubic = CROPS["adm"].apply(image, SIDE), CROPS["bicubic"].apply(image, SIDE)
    assert (round(95 * SIDE / 61), int(SIDE * 95 / 61)) == (50, 49)
    assert (adm != bicubic).any()


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(CROPS)), st.integers(1, 200), st.integers(1, 200), st.integers(1, 70))
def test_every_picture_gives_a_square_and_one_colour_stays(rule, width, height, side):
    image = Image.new("RGB", (width, height), (200, 10, 90))
    result = CROPS[rule].apply(image, side)
    assert result.shape == (side, side, 3)
    assert result.dtype == np.uint8
    if rule != "centre-only" or min(width, height) >= side:
        assert (result == (200, 10, 90)).all()


@pytest.mark.parametrize("rule", sorted(CROPS))
def test_the_picture_itself_is_left_alone(rule):
    image = picture(150, 99)
    before = image.tobytes()
    CROPS[rule].apply(image, SIDE)
    assert (image.tobytes(), image.size) == (before, (150, 99))


def test_each_rule_gives_other_pixels():
    image = picture(300, 211)
    results = {rule.apply(image, SIDE).tobytes() for rule in CROPS.values()}
    assert len(results) == len(CROPS)
