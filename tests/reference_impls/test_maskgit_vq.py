"""MaskGIT-VQ gives what the release gives, from the release's keys."""

import pytest
import torch

from reference_impls.tokenizers.maskgit_vq import METHOD, MaskGitVQ, release_arguments
from tests import vector_case
from tokenmark.contracts import Tokens


@pytest.fixture(scope="module")
def case():
    vector = vector_case.load("maskgit-vq__tiny")
    module = MaskGitVQ(**release_arguments(vector["config"]))
    assert list(module.state_dict()) == list(vector["parameters"])
    return vector, vector_case.fill(module, vector), vector_case.inputs(vector)["image"]


def test_every_recorded_output(case):
    vector, module, image = case
    stages = {"encoder_conv_in": module.encoder.conv_in, "encoder_mid": module.encoder.mid}
    stages |= {"decoder_conv_in": module.decoder.conv_in, "decoder_mid": module.decoder.mid}
    stages |= {f"encoder_down_{i}": level for i, level in enumerate(module.encoder.down)}
    stages |= {f"decoder_up_{i}": level for i, level in enumerate(module.decoder.up)}
    stages |= {"encoded": module.encoder}
    with vector_case.outputs_of(stages) as seen, torch.no_grad():
        step = module.forward_train(image)
    tokens = module.encode(image)
    quantized = module.quantize.lookup(tokens.codes).transpose(1, 2).unflatten(2, (4, 4))
    seen |= {"tokens": tokens.codes, "quantized": quantized, "reconstruction": step.reconstruction}
    seen |= {"decoded_tokens": module.decode(tokens)}
    assert seen.keys() == vector["outputs"].keys()
    vector_case.check(vector, **seen)


def test_released_checkpoint_fits():
    manifest = vector_case.load("maskgit-vq__imagenet-f16-256.manifest")
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants["imagenet-f16-256"].config)
    vector_case.check_keys(module, manifest)
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
