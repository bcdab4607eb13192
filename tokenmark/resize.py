"""The resizes of protocols: images `(B, 3, H, W)` of float grey levels in [0, 255] to `(B, 3, size, size)`.

They differ by whole grey levels at 256 to 299, which moves an FID by more than its error. What torch does not have is
two matrix products, W_y x W_x^T, on the device of the images.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from tokenmark.errors import chosen

Resize = Callable[[Tensor, int], Tensor]


def tf1(images: Tensor, size: int) -> Tensor:
    """Bilinear as TensorFlow 1 has it: output pixel i lies at i * W / size, so pixels' corners and not centres match.

    What torch-fidelity and ADM's evaluator do before Inception. The step is rounded to float32, as TensorFlow's is, and
    positions to the images' type, as torch-fidelity's are.
    """
    if images.dtype == torch.float32:
        # The same grid is that of aligned corners on an image whose last row and column are repeated: then torch's own
        # kernel does it, in half the time of the products. In float64 that kernel would not round the step.
        padded = functional.pad(images, (0, 1, 0, 1), mode="replicate")
        larger = functional.interpolate(padded, (size + 1, size + 1), mode="bilinear", align_corners=True)
        return larger[..., :size, :size]
    return _applied(functools.partial(_tf1_weights, images.dtype), images, size)


def half_pixel(images: Tensor, size: int) -> Tensor:
    """Bilinear between pixels' centres, as pytorch-fid does; nothing is averaged where images shrink."""
    return functional.interpolate(images, (size, size), mode="bilinear", align_corners=False)


def antialiased(images: Tensor, size: int) -> Tensor:
    """Bilinear with a filter that widens where images shrink: torchmetrics' default since its release 1.8."""
    return functional.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)


def pil_bicubic(images: Tensor, size: int) -> Tensor:
    """Pillow's bicubic on float images (mode F), cut off at 0 and 255: clean-fid (arXiv 2104.11222)."""
    return _applied(_pil_bicubic_weights, images, size).clamp(0.0, 255.0)


RESIZES: dict[str, Resize] = {
    "tf1": tf1,
    "half-pixel": half_pixel,
    "antialiased": antialiased,
    "pil-bicubic": pil_bicubic,
}


def get(name: str) -> Resize:
    """The resize called `name`.

    Raises:
        UnknownNameError: there is none of that name.
    """
    return chosen("resize", name, RESIZES)


def _applied(weights: Callable[[int, int], Tensor], images: Tensor, size: int) -> Tensor:
    vertical, horizontal = (weights(length, size).to(images) for length in images.shape[-2:])
    # Rows first where they shrink, so that the second product has less to do.
    return (vertical @ images) @ horizontal.T if size < images.shape[-2] else vertical @ (images @ horizontal.T)


@functools.lru_cache(maxsize=32)
def _tf1_weights(dtype: torch.dtype, length: int, size: int) -> Tensor:
    """`(size, length)`: two neighbours for each output pixel, the last input pixel repeated beyond the edge."""
    at = torch.arange(size, dtype=dtype) * torch.tensor(length / size, dtype=torch.float32)
    low = at.long()
    share = (at - low).double()
    weights = torch.zeros(size, length, dtype=torch.float64)
    rows = torch.arange(size)
    weights[rows, low] = 1.0 - share
    weights[rows, (low + 1).clamp_max(length - 1)] += share
    return weights


@functools.lru_cache(maxsize=32)
def _pil_bicubic_weights(length: int, size: int) -> Tensor:
    """`(size, length)`: Keys' kernel with a = -1/2 around each output pixel's centre, widened where images shrink.

    Pillow takes the pixels whose centres lie within the kernel, and scales their weights to a sum of one.
    """
    scale = length / size
    widening = max(scale, 1.0)
    centres = (torch.arange(size, dtype=torch.float64)[:, None] + 0.5) * scale
    weights = _keys((torch.arange(length, dtype=torch.float64)[None] + 0.5 - centres) / widening)
    return weights / weights.sum(dim=1, keepdim=True)


def _keys(x: Tensor, a: float = -0.5) -> Tensor:
    """The cubic convolution kernel (Keys 1981, equation 4 with a free)."""
    x = x.abs()
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return torch.where(x < 1.0, near, torch.where(x < 2.0, far, torch.zeros_like(x)))
