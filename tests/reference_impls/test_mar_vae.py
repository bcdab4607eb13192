"""KL-16: the released size, its noise, and the small size that trains."""

import pytest
import torch

from reference_impls.tokenizers.mar_vae import METHOD, MINI_CONFIG
from tokenmark.contracts import MethodError


@pytest.fixture(scope="module")
def mini():
    torch.manual_seed(0)
    return METHOD.build(**MINI_CONFIG)


def test_released_size():
    with torch.device("meta"):
        info = METHOD.build(**METHOD.variants["kl16"].config).info
    assert (info.max_tokens, info.codebook_sizes, info.bits_per_token) == (256, (), 512.0)
    assert info.parameters == 66_456_019


def test_noise_repeats_and_does_not_depend_on_the_batch(mini):
    images = torch.rand(3, 3, 32, 32)
    whole = mini.encode(images, generator=torch.Generator().manual_seed(7)).latents
    generator = torch.Generator().manual_seed(7)
    parts = [mini.encode(part, generator=generator).latents for part in images.split([1, 2])]
    torch.testing.assert_close(torch.cat(parts), whole)
    with pytest.raises(MethodError, match=r"torch\.Generator"):
        mini.encode(images)


def test_mini_trains(mini):
    images = torch.rand(2, 3, 32, 32)
    step = mini.forward_train(images, torch.Generator().manual_seed(0))
    assert step.codes is None
    assert step.reconstruction.shape == images.shape
    torch.testing.assert_close(step.quantizer_loss, mini.posterior(images).kl().mean())
    ((step.reconstruction - images).square().mean() + step.quantizer_loss).backward()
    assert all(parameter.grad is not None for parameter in mini.parameters())
    assert mini.info.parameters * 4 < 2_000_000


def test_sizes_that_do_not_fit():
    with pytest.raises(MethodError, match="multiple of 4"):
        METHOD.build(**{**MINI_CONFIG, "image_size": 30})
