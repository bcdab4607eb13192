"""Extractors of drawn numbers, and images to put through them."""

import pytest
import torch

from tokenmark import extractors
from tokenmark.files import sha256_of


@pytest.fixture(scope="session")
def load_inception(inception_file):
    """`extractors.load` with the seeded file in the real one's place."""

    def load(name="inception", **options):
        digest = sha256_of(inception_file)
        return extractors.load(name, torch.device("cpu"), weights=inception_file, sha256=digest, **options)

    return load


def pictures(side, batch=2, dtype=torch.uint8):
    """Smooth images with noise on them, so that both low and high frequencies pass through a resize."""
    generator = torch.Generator().manual_seed(side)
    coarse = torch.rand(batch, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    images = (smooth + 0.2 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)
    levels = (images * 255).round()
    return levels.to(torch.uint8) if dtype == torch.uint8 else (levels / 255.0).to(dtype)
