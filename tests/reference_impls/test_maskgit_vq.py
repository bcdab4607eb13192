"""MaskGIT-VQ: sizes, gradients and codes."""

import torch

from reference_impls.tokenizers.maskgit_vq import METHOD
from tokenmark.contracts import Tokens


def test_released_size():
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants["imagenet-f16-256"].config)
    assert module.info.parameters == 54_515_587
    assert module.info.max_tokens == 256


def test_mini_gradients_reach_every_parameter():
    module = METHOD.build(**METHOD.variants["mini"].config)
    images = torch.rand(2, 3, 32, 32)
    step = module.forward_train(images)
    ((step.reconstruction - images).square().mean() + step.quantizer_loss).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())
    assert step.codes.shape == (2, 64)


def test_decode_depends_on_every_code():
    module = METHOD.build(**METHOD.variants["mini"].config).eval()
    codes = torch.zeros(1, 64, dtype=torch.int64)
    other = codes.clone()
    other[0, -1] = 9

    def decode(codes):
        return module.decode_latents(module.quantize.lookup(codes))

    assert not torch.equal(decode(codes)[..., -4:, -4:], decode(other)[..., -4:, -4:])
    assert module.decode(Tokens(lengths=torch.tensor([64]), bits=torch.tensor([512.0]), codes=codes)).shape[-1] == 32
