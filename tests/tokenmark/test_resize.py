"""Each resize against the library whose it is, where images grow, shrink and stay."""

import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from tokenmark import resize
from tokenmark.errors import UnknownNameError

SIDE = 299


def noise(height, width=None, batch=2, dtype=torch.float32):
    """Random grey levels: the hardest image for any resize."""
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (batch, 3, height, width or height), generator=generator).to(dtype)


def by_torch_fidelity(images, size):
    return interpolate_bilinear_2d_like_tensorflow1x(images, (size, size), align_corners=False)


def by_definition(images, size):
    """Every output pixel from its four neighbours, one after the other."""
    height, width = images.shape[-2:]
    out = torch.empty(*images.shape[:2], size, size)
    for i, y in enumerate((np.float32(height / size) * np.arange(size, dtype=np.float32)).tolist()):
        for j, x in enumerate((np.float32(width / size) * np.arange(size, dtype=np.float32)).tolist()):
            top, left = int(y), int(x)
            rows, columns = [top, min(top + 1, height - 1)], [left, min(left + 1, width - 1)]
            (a, b), (c, d) = ([images[..., row, column] for column in columns] for row in rows)
            out[..., i, j] = (a * (1 - x + left) + b * (x - left)) * (1 - y + top) + (
                c * (1 - x + left) + d * (x - left)
            ) * (y - top)
    return out


def by_pillow(images, size):
    planes = [Image.fromarray(plane.float().numpy(), mode="F") for plane in images.flatten(0, 1)]
    planes = [np.asarray(plane.resize((size, size), Image.Resampling.BICUBIC)) for plane in planes]
    return torch.from_numpy(np.stack(planes)).clamp(0, 255).reshape(*images.shape[:2], size, size)


def by_clean_fid(images, size):
    assert size == SIDE
    resizer = build_resizer("clean")
    arrays = [resizer(image.permute(1, 2, 0).numpy().astype(np.uint8)) for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("side", [32, 64, 256, 299, 300, 512])
@pytest.mark.parametrize(
    ("name", "reference"),
    [("tf1", by_torch_fidelity), ("pil-bicubic", by_pillow), ("pil-bicubic", by_clean_fid)],
)
@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_equals_its_library_to_a_thousandth_of_a_level(name, reference, side):
    images = noise(side)
    got = resize.get(name)(images, SIDE)
    assert got.dtype == torch.float32
    assert (got - reference(images, SIDE)).abs().max().item() <= 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("height", "width", "size"), [(8, 13, 29), (40, 31, 29), (29, 29, 29), (1, 2, 5)])
def test_tf1_by_definition(dtype, height, width, size):
    images = noise(height, width, dtype=dtype)
    assert (resize.tf1(images, size) - by_definition(images, size)).abs().max().item() <= 1e-3


@pytest.mark.parametrize("side", [64, 256, 299, 512])
def test_tf1_in_float64_rounds_the_step_as_torch_fidelity_does(side):
    """A step in float64 moves the last pixels of these by more than a thousandth of a level."""
    images = noise(side, dtype=torch.float64)
    assert (resize.tf1(images, SIDE) - by_torch_fidelity(images, SIDE)).abs().max().item() <= 1e-9


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_any_shape(height, width, size):
    images = noise(height, width, batch=1)
    assert (resize.tf1(images, size) - by_torch_fidelity(images, size)).abs().max().item() <= 1e-3
    exact = images.double()
    assert (resize.tf1(exact, size) - by_torch_fidelity(exact, size)).abs().max().item() <= 1e-9
    assert (resize.pil_bicubic(images, size) - by_pillow(images, size)).abs().max().item() <= 1e-3


@pytest.mark.parametrize("side", [64, 256, 512])
def test_torchs_own_are_told_apart(side):
    """Half-pixel and antialiased are one where images grow; where they shrink, and beside TF1, they are not."""
    images = noise(side)
    half, smooth, tf1 = (resize.get(name)(images, SIDE) for name in ("half-pixel", "antialiased", "tf1"))
    assert torch.equal(half, functional.interpolate(images, (SIDE, SIDE), mode="bilinear"))
    assert torch.equal(smooth, functional.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True))
    assert ((half - smooth).abs().max() < 1e-3) == (side < SIDE)
    assert (half - tf1).abs().mean() > 1.0


@pytest.mark.parametrize("name", resize.RESIZES)
def test_images_of_the_right_size_and_plain_images_stay(name):
    images = noise(24)
    assert torch.allclose(resize.get(name)(images, 24), images, atol=1e-4)
    plain = torch.full((1, 3, 20, 31), 200.0)
    assert torch.allclose(resize.get(name)(plain, 24), torch.full((1, 3, 24, 24), 200.0), atol=1e-3)


def test_bicubic_stays_within_grey_levels():
    edges = torch.zeros(1, 3, 16, 16)
    edges[..., 8:] = 255.0
    enlarged = resize.pil_bicubic(edges, 40)
    assert enlarged.min() == 0.0
    assert enlarged.max() == 255.0


def test_unknown_name():
    with pytest.raises(UnknownNameError, match="did you mean half-pixel"):
        resize.get("halfpixel")
