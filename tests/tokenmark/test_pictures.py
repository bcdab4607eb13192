"""Grids of images."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tokenmark.pictures import grid


def opened(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_every_image_is_at_its_place_twice_enlarged():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, 6, 4), generator=generator).float() / 255
    picture = opened(grid(images, columns=3))
    assert picture.shape == ((2 * 6 + 3 * 2) * 2, (3 * 4 + 4 * 2) * 2, 3)
    small = picture[::2, ::2]
    assert (np.repeat(np.repeat(small, 2, 0), 2, 1) == picture).all()
    expected = np.full(small.shape, 96, np.uint8)
    for place, image in enumerate(images):
        top, left = 2 + place // 3 * 8, 2 + place % 3 * 6
        expected[top : top + 6, left : left + 4] = (image.permute(1, 2, 0) * 255).round().numpy()
    assert (small == expected).all()


@pytest.mark.parametrize(("n", "columns", "rows"), [(1, 1, 1), (4, 4, 1), (5, 4, 2), (3, 10, 1)])
def test_rows(n, columns, rows):
    picture = opened(grid(torch.zeros(n, 3, 8, 8), columns))
    assert picture.shape[:2] == ((rows * 10 + 2) * 2, (columns * 10 + 2) * 2)


def test_large_images_keep_their_size():
    images = torch.rand(2, 3, 128, 4, generator=torch.Generator().manual_seed(0))
    picture = opened(grid(images, 2))
    assert picture.shape[:2] == (128 + 2 * 2, 2 * 4 + 3 * 2)
    assert (picture[2:-2, 2:6] == (images[0].permute(1, 2, 0) * 255).round().numpy()).all()


def test_values_beyond_the_range_are_clamped():
    images = torch.tensor([-1.0, 2.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    small = opened(grid(images, 2))[::2, ::2]
    assert (small[2:6, 2:6] == 0).all()
    assert (small[2:6, 8:12] == 255).all()
