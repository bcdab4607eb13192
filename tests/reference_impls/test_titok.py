"""TiTok in its released forms: sizes, the Gaussian bottleneck, both training stages."""

import pytest
import torch

from reference_impls.layers.gaussian import DiagonalGaussian
from reference_impls.tokenizers import maskgit_vq
from reference_impls.tokenizers.titok import METHOD, TiTok
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError, Tokens

RELEASED = {
    "l32": (32, 641_054_735),
    "b64": (64, 204_814_095),
    "s128": (128, 83_674_639),
    "bl64-vq8k": (64, 390_016_148),
    "bl128-vq8k": (128, 390_179_988),
    "sl256-vq8k": (256, 330_260_884),
    "ll32-vae": (32, 606_879_604),
    "bl64-vae": (64, 389_418_100),
    "bl128-vae": (128, 389_581_940),
}


@pytest.mark.parametrize("variant", RELEASED)
def test_released_sizes(variant):
    tokens, parameters = RELEASED[variant]
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants[variant].config)
    assert module.info.parameters == parameters
    assert module.info.max_tokens == tokens


def test_stage_one_ends_at_logits(legacy):
    codes = legacy.encode(torch.rand(1, 3, 32, 32))
    with pytest.raises(MethodError, match="MaskGIT-VQ"):
        legacy.decode(codes)


@pytest.fixture(scope="module")
def legacy():
    return TiTok(**SMALL["titok"], finetune_decoder=False).eval()


def test_log_variance_is_clamped():
    moments = torch.tensor([0.0, 0.0, -1e3, 1e3]).reshape(1, 4, 1, 1)
    assert DiagonalGaussian(moments).logvar.flatten().tolist() == [-30.0, 20.0]


def test_kl_is_zero_for_the_standard_normal_and_one_half_per_unit_shift():
    moments = torch.zeros(2, 4, 1, 3)
    moments[1, :2] = 1.0
    assert DiagonalGaussian(moments).kl().tolist() == [0.0, 3.0]


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    sizes = {"width": 16, "layers": 1, "heads": 2, "patch_size": 8}
    return TiTok(
        image_size=16, encoder=sizes, decoder=sizes, num_latent_tokens=5, token_size=3, codebook_size=None
    ).eval()


def test_vae_needs_a_generator_and_ignores_how_images_are_batched(vae):
    images = torch.rand(3, 3, 16, 16)
    with pytest.raises(MethodError, match=r"torch\.Generator"):
        vae.encode(images)
    whole = vae.encode(images, generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    parts = [vae.encode(part, generator=generator).latents for part in images.split([1, 2])]
    torch.testing.assert_close(torch.cat(parts), whole.latents)
    assert whole.bits.tolist() == [5 * 3 * 32.0] * 3
    assert vae.decode(whole).shape == (3, 3, 16, 16)
    with pytest.raises(MethodError, match="integer codes"):
        vae.decode(Tokens(lengths=whole.lengths, bits=whole.bits, codes=torch.zeros(3, 5, dtype=torch.int64)))
    with pytest.raises(MethodError, match="latents must be"):
        vae.decode(Tokens(lengths=whole.lengths, bits=whole.bits, latents=whole.latents[:, :4]))


def test_vae_trains(vae):
    step = vae.forward_train(torch.rand(2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    (step.reconstruction.square().mean() + step.quantizer_loss).backward()
    assert all(parameter.grad is not None for parameter in vae.parameters())


def test_mini_trains_in_both_stages():
    torch.manual_seed(0)
    pixel = maskgit_vq.METHOD.build(**maskgit_vq.METHOD.variants["mini"].config)
    module = METHOD.build(**METHOD.variants["mini-16"].config)
    module.load_pixel_decoder(pixel)
    images = torch.rand(2, 3, 32, 32)
    quantized = module.quantize_images(images)
    targets = pixel.encode(images).codes
    logits = module.decode_logits(quantized.quantized)
    stage1 = torch.nn.functional.cross_entropy(logits.flatten(2), targets) + quantized.loss
    stage1.backward()
    assert not any(parameter.grad is not None for parameter in module.pixel_decoder.parameters())
    assert all(parameter.grad is not None for parameter in module.encoder.parameters())
    step = module.forward_train(images)
    (step.reconstruction - images).square().mean().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    torch.testing.assert_close(step.logits, logits)
