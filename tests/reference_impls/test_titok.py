"""TiTok, in all its released forms, gives what the release gives, from the release's keys."""

import pytest
import torch

from reference_impls.layers.gaussian import DiagonalGaussian
from reference_impls.tokenizers import maskgit_vq
from reference_impls.tokenizers.titok import METHOD, TiTok, release_arguments
from tests import vector_case
from tokenmark.contracts import MethodError, Tokens

RELEASED = {
    "l32": ("l32", 641_054_735),
    "b64": ("b64", 204_814_095),
    "s128": ("s128", 83_674_639),
    "bl64-vq8k": ("bl64_vq8k", 390_016_148),
    "bl128-vq8k": ("bl128_vq8k", 390_179_988),
    "sl256-vq8k": ("sl256_vq8k", 330_260_884),
    "ll32-vae": ("ll32_vae_c16", 606_879_604),
    "bl64-vae": ("bl64_vae_c16", 389_418_100),
    "bl128-vae": ("bl128_vae_c16", 389_581_940),
}


def built(name):
    vector = vector_case.load(name)
    module = TiTok(**release_arguments(vector["config"]))
    vector_case.check_keys(module, vector)
    return vector, vector_case.fill(module, vector), vector_case.inputs(vector)


def stages_of(module):
    sides = {"encoder": module.encoder, "decoder": module.decoder}
    stages = {f"{name}_ln_pre": side.ln_pre for name, side in sides.items()}
    for name, side in sides.items():
        stages |= {f"{name}_block_{i}": block for i, block in enumerate(side.transformer)}
    return stages | {"encoded": module.encoder}


def as_release(latents):
    """`(B, N, C)` in the release's layout `(B, C, 1, N)`."""
    return latents.transpose(1, 2).unsqueeze(2)


def decode_unclamped(module, codes):
    with torch.no_grad():
        return module.decode_latents(module.quantize.lookup(codes))


def test_legacy_gives_every_recorded_output():
    vector, module, inputs = built("titok__legacy-tiny")
    with vector_case.outputs_of(stages_of(module)) as seen, torch.no_grad():
        quantized = module.quantize_images(inputs["image"])
        logits = module.decode_logits(quantized.quantized)
        pixels = {}
        hook = module.pixel_decoder.register_forward_pre_hook(lambda _module, args: pixels.update(rows=args[0]))
        reconstruction = module.decode_pixels(logits)
        hook.remove()
    codes = module.encode(inputs["image"]).codes
    seen |= {"tokens": codes[:, None], "quantized": as_release(quantized.quantized), "decoder_output": logits}
    seen |= {"pixel_quantized": pixels["rows"], "reconstruction": reconstruction}
    seen |= {"decoded_tokens": decode_unclamped(module, codes)}
    assert seen.keys() == vector["outputs"].keys()
    vector_case.check(vector, **seen)


def test_stage_one_ends_at_logits_that_maskgit_decodes():
    vector, module, inputs = built("titok__legacy-stage1-tiny")
    pixel_vector = vector_case.load("maskgit-vq__tiny")
    pixel = maskgit_vq.MaskGitVQ(**maskgit_vq.release_arguments(pixel_vector["config"]))
    vector_case.fill(pixel, pixel_vector)
    with torch.no_grad():
        quantized = module.quantize_images(inputs["image"])
        logits = module.decode_logits(quantized.quantized)
        encoded = module.encode_latents(inputs["image"])
    pixel_tokens = logits.argmax(1)
    targets = pixel.encode(inputs["image"])
    image = pixel.decode(Tokens(lengths=targets.lengths, bits=targets.bits, codes=pixel_tokens.flatten(1)))
    vector_case.check(
        vector,
        encoded=encoded,
        tokens=quantized.codes[:, None],
        quantized=as_release(quantized.quantized),
        decoder_output=logits,
        pixel_tokens=pixel_tokens,
        pixel_targets_tokens=targets.codes,
        reconstruction=image,
    )
    with pytest.raises(MethodError, match="MaskGIT-VQ"):
        module.decode(module.encode(inputs["image"]))


def test_later_vq_gives_every_recorded_output():
    vector, module, inputs = built("titok__vq-tiny")
    with vector_case.outputs_of(stages_of(module)) as seen, torch.no_grad():
        quantized = module.quantize_images(inputs["image"])
        reconstruction = module.decode_latents(quantized.quantized)
    seen |= {"tokens": quantized.codes[:, None], "quantized": as_release(quantized.quantized)}
    seen |= {"reconstruction": reconstruction, "decoded_tokens": decode_unclamped(module, quantized.codes)}
    assert seen.keys() == vector["outputs"].keys()
    vector_case.check(vector, **seen)


def test_vae_gives_every_recorded_output():
    vector, module, inputs = built("titok__vae-tiny")
    with vector_case.outputs_of(stages_of(module)) as seen, torch.no_grad():
        posterior = module.posterior(inputs["image"])
        reconstruction = module.decode_latents(posterior.mean.squeeze(2).transpose(1, 2))
    sample = posterior.sample(inputs["noise"])
    with torch.no_grad():
        sampled = module.decode_latents(sample.squeeze(2).transpose(1, 2))
    seen |= {"mean": posterior.mean, "logvar": posterior.logvar, "std": posterior.std, "sample": sample}
    seen |= {"reconstruction": reconstruction, "reconstruction_sampled": sampled}
    assert seen.keys() == vector["outputs"].keys()
    vector_case.check(vector, **seen)


@pytest.mark.parametrize("variant", RELEASED)
def test_released_checkpoint_fits(variant):
    file, parameters = RELEASED[variant]
    manifest = vector_case.load(f"titok__{file}.manifest")
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants[variant].config)
    vector_case.check_keys(module, manifest)
    assert module.info.parameters == parameters
    assert module.info.max_tokens == manifest["config"]["model"]["vq_model"]["num_latent_tokens"]
    with torch.device("meta"):
        vector_case.check_keys(TiTok(**release_arguments(manifest["config"])), manifest)


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
