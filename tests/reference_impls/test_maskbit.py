"""MaskBit's tokenizers: sizes, the release's tables, gradients."""

import pytest
import torch

from reference_impls.tokenizers.maskbit import METHOD, release_arguments
from tests.reference_impls.small_tokenizers import SMALL

RELEASED = {
    "10bit": (10, 54_469_005),
    "12bit": (12, 54_479_247),
    "14bit": (14, 54_489_489),
    "16bit": (16, 54_499_731),
    "18bit": (18, 54_509_973),
    "vqgan-plus-10bit": (10, 55_990_915),
    "vqgan-plus-12bit": (12, 55_007_683),
}


@pytest.mark.parametrize("variant", RELEASED)
def test_released_sizes(variant):
    bits, parameters = RELEASED[variant]
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants[variant].config)
    assert module.info.parameters == parameters
    assert module.info.max_tokens == 256
    assert module.info.codebook_sizes == (2**bits,)


def test_tables_of_the_checkpoint():
    quantize = METHOD.build(**SMALL["maskbit"]).quantize
    assert quantize.bits_to_indices.tolist() == [2**bit for bit in range(10)]
    assert quantize.codebook[5].tolist() == [1, -1, 1, -1, -1, -1, -1, -1, -1, -1]


def test_a_wrong_codebook_size_is_not_read():
    sizes = {"hidden_channels": 32, "channel_mult": [1, 1], "num_res_blocks": 1, "token_size": 14}
    told = release_arguments({"quantizer_type": "lookup-free", "codebook_size": 4096, **sizes})
    assert METHOD.build(**told).info.bits_per_token == 14


@pytest.mark.parametrize("codebook_size", [None, 64])
def test_training_reaches_every_parameter(codebook_size):
    torch.manual_seed(0)
    module = METHOD.build(**SMALL["maskbit"], codebook_size=codebook_size)
    images = torch.rand(2, 3, 32, 32)
    step = module.forward_train(images)
    assert step.codes.shape == (2, 64)
    (step.reconstruction.sub(images).square().mean() + step.quantizer_loss).backward()
    assert all(parameter.grad.any() and parameter.grad.isfinite().all() for parameter in module.parameters())


def test_the_entropy_term_is_part_of_the_loss():
    torch.manual_seed(0)
    module = METHOD.build(**SMALL["maskbit"])
    images = torch.rand(2, 3, 32, 32)
    with_it = module.forward_train(images).quantizer_loss
    module.quantize.entropy = None
    assert with_it < module.forward_train(images).quantizer_loss
