"""Means over images, and their state."""

import numpy as np
import pytest

from tokenmark.measures.base import PerImage, mean_value


def test_mean_value():
    value = mean_value("psnr", np.array([1.0, 2.0, 4.0, 9.0]))
    assert (value.value, value.n) == (4.0, 4)
    assert value.se == pytest.approx(np.sqrt((9 + 4 + 0 + 25) / 3 / 4))
    assert mean_value("psnr", np.array([3.0])).se is None


def test_per_image_keeps_order_and_goes_on():
    values = PerImage()
    assert values.all().shape == (0,)
    values.add(np.array([1.0, 2.0]))
    values.replace(values.all())
    values.add(np.array([3.0]))
    assert values.all().tolist() == [1.0, 2.0, 3.0]
