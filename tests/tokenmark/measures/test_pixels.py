"""PSNR and SSIM against their definitions in numpy, and torchmetrics' own classes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from tokenmark.measures import pixels
from tokenmark.measures.pixels import PixelMeasure


def pairs(seed, batch=5, side=32):
    """Smooth images and noisy copies of them, each noisier than the one before."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 4, 4, generator=generator)
    originals = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    levels = torch.linspace(0.01, 0.4, batch).view(-1, 1, 1, 1)
    return (originals + levels * torch.randn(originals.shape, generator=generator)).clamp(0, 1), originals


def ssim_by_definition(x, y):
    """Wang et al. 2004, equation 13, around every pixel of one image `(3, H, W)` that is reflected at its borders."""
    at = np.arange(11) - 5
    line = np.exp(-(at**2) / (2 * 1.5**2))
    window = np.outer(line, line) / np.outer(line, line).sum()
    padded = (np.pad(z.double().numpy(), ((0, 0), (5, 5), (5, 5)), "reflect") for z in (x, y))
    x, y = (np.lib.stride_tricks.sliding_window_view(z, (11, 11), axis=(1, 2)) for z in padded)

    def mean(z):
        return (z * window).sum(axis=(-2, -1))

    mu_x, mu_y = mean(x), mean(y)
    var_x, var_y, cov = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2, mean(x * y) - mu_x * mu_y
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mu_x * mu_y + c1) * (2 * cov + c2) / ((mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2))).mean()


def test_psnr_of_each_image():
    images, originals = pairs(0)
    x, y = images.double().numpy(), originals.double().numpy()
    expected = [10 * np.log10(1.0 / np.mean((a - b) ** 2)) for a, b in zip(x, y, strict=True)]
    assert pixels.psnr(images, originals).numpy() == pytest.approx(expected, rel=1e-10)
    assert expected[0] > expected[-1] + 10
    by_library = [float(PeakSignalNoiseRatio(data_range=1.0)(a, b)) for a, b in zip(images, originals, strict=True)]
    assert pixels.psnr(images, originals).numpy() == pytest.approx(by_library, rel=1e-5)


def test_psnr_of_known_errors():
    grey = torch.full((1, 3, 8, 8), 0.5)
    assert pixels.psnr(grey + 0.1, grey).item() == pytest.approx(20.0, abs=1e-5)
    assert pixels.psnr(torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)).item() == 0.0
    assert pixels.psnr(grey, grey).item() == pytest.approx(100.0)
    one_level = grey.clone()
    one_level[0, 0, 0, 0] += 1 / 255
    assert pixels.psnr(one_level, grey).item() == pytest.approx(20 * np.log10(255) + 10 * np.log10(192), abs=1e-4)


def test_ssim_of_each_image():
    images, originals = pairs(1)
    expected = [ssim_by_definition(x, y) for x, y in zip(images, originals, strict=True)]
    assert pixels.ssim(images, originals).numpy() == pytest.approx(expected, abs=1e-4)
    assert expected[0] > expected[-1] + 0.3


def test_ssim_of_identical_images_is_one():
    _, originals = pairs(2)
    assert pixels.ssim(originals, originals).numpy() == pytest.approx(np.ones(5), abs=1e-6)
    assert pixels.ssim(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)).item() == pytest.approx(1.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(11, 20))
def test_bounds_and_symmetry(seed, side):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(2, 2, 3, side, side, generator=generator)
    similarity = pixels.ssim(x, y)
    assert ((similarity >= -1) & (similarity <= 1)).all()
    assert torch.allclose(similarity, pixels.ssim(y, x), atol=1e-5)
    assert torch.allclose(pixels.psnr(x, y), pixels.psnr(y, x))
    assert ((pixels.psnr(x, y) >= 0) & (pixels.psnr(x, y) <= 100)).all()


@pytest.mark.parametrize("name", ["psnr", "ssim"])
def test_the_mean_is_over_images_and_not_over_batches(name):
    """An uneven last batch must weigh by its images; a mean of batch means, or a PSNR of the mean error, fails."""
    images, originals = pairs(3, batch=7)
    measure = PixelMeasure(name)
    for part in (slice(0, 6), slice(6, 7)):
        measure.update(images[part], originals[part])
    each = [float(getattr(pixels, name)(images[i : i + 1], originals[i : i + 1])) for i in range(7)]
    (value,) = measure.compute()
    assert (value.name, value.n) == (name, 7)
    assert value.value == pytest.approx(np.mean(each), rel=1e-6)
    assert value.se == pytest.approx(np.std(each, ddof=1) / np.sqrt(7), rel=1e-5)


def test_mean_ssim_equals_torchmetrics():
    images, originals = pairs(4, batch=6)
    library, measure = StructuralSimilarityIndexMeasure(data_range=1.0), PixelMeasure("ssim")
    for part in (slice(0, 4), slice(4, 6)):
        library.update(images[part], originals[part])
        measure.update(images[part], originals[part])
    assert measure.compute()[0].value == pytest.approx(float(library.compute()), abs=1e-6)


@pytest.mark.parametrize("name", ["psnr", "ssim"])
def test_a_measure_that_was_stopped_goes_on_to_the_same_bits(name):
    images, originals = pairs(5)
    whole, first, second = PixelMeasure(name), PixelMeasure(name), PixelMeasure(name)
    for at in range(5):
        whole.update(images[at : at + 1], originals[at : at + 1])
    first.update(images[:1], originals[:1])
    second.load(first.state())
    for at in range(1, 5):
        second.update(images[at : at + 1], originals[at : at + 1])
    assert second.compute() == whole.compute()


def test_unknown_name():
    with pytest.raises(KeyError):
        PixelMeasure("lpips")
