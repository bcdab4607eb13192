"""Which attention kernel ran, against torch's own ways to force one."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from tokenmark.measures.attention import kernels

IMAGES = torch.randn(2, 3, 16, 8, generator=torch.Generator().manual_seed(0))


def fused(images):
    return scaled_dot_product_attention(images, images, images, scale=0.3)


@pytest.mark.parametrize(("backend", "name"), [(SDPBackend.MATH, "math"), (SDPBackend.FLASH_ATTENTION, "flash")])
def test_the_kernel_that_was_forced_is_the_one_that_is_told(backend, name):
    with sdpa_kernel(backend):
        assert kernels(fused, IMAGES) == {name: 1}


def test_every_attention_is_counted_and_the_call_is_really_made():
    seen = []

    def call(images):
        seen.append(fused(fused(images)))
        return seen[0]

    assert sum(kernels(call, IMAGES).values()) == 2
    assert torch.equal(seen[0], fused(fused(IMAGES)))


def test_no_fused_attention():
    assert kernels(lambda x: (x @ x.mT).softmax(dim=-1) @ x, IMAGES) == {}
