"""ViTok: the paper's tokens, bottlenecks, parameters and multiply-accumulates; places, clips and noise."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from reference_impls.layers.axial_vit import AxialRotary, rotated
from reference_impls.tokenizers.vitok import METHOD
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError

# Tokens of a clip, E, parameters in millions and GMAC, as the paper prints them (256 tokens for images at 256 pixels).
PRINTED = {
    "s-b-16": (256, 4096, 129.0, 34.8),
    "s-l-16": (256, 4096, 426.8, 113.4),
    "s-b-16-512": (1024, 16384, 129.0, 160.8),
    "s-b-8-c4": (1024, 4096, None, None),
    "s-b-32-c32": (64, 2048, None, None),
    "s-b-4x8": (1024, 16384, None, 160.8),
    "s-b-8x8": (512, 8192, None, 73.2),
    "s-b-4x16": (256, 4096, None, 34.8),
}
SD_VAE_GMAC = {256: 162.2, 512: 653.8}


def on_meta(variant):
    with torch.device("meta"):
        return METHOD.build(**METHOD.variants[variant].config)


def macs(module, frames):
    clips = torch.zeros(1, 3, frames, module.image_size, module.image_size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        latents = module.clip_posterior(clips).mean
        assert module.decode_clips(latents).shape == clips.shape
    return latents.shape, counter.get_total_flops() / 2e9


@pytest.mark.parametrize("variant", PRINTED)
def test_sizes_of_the_paper(variant):
    tokens, bottleneck, parameters, gmac = PRINTED[variant]
    module = on_meta(variant)
    (_, channels, *grid), counted = macs(module, METHOD.variants[variant].config.get("frames", 1))
    assert torch.Size(grid).numel() == tokens
    assert tokens * channels == bottleneck
    if parameters is not None:
        assert module.info.parameters / 1e6 == pytest.approx(parameters, rel=0.002)
    if gmac is not None:
        assert counted == pytest.approx(gmac, rel=0.025)
    if "frames" not in METHOD.variants[variant].config:
        assert (module.max_tokens, module.bottleneck) == (tokens, bottleneck)


@pytest.mark.parametrize(("side", "million"), [("s", 43.3), ("b", 85.8), ("l", 383.7)])
def test_each_side_has_the_printed_parameters(side, million):
    module = on_meta(f"{side}-{side}-16")
    for parts in (
        (module.patch_embed, module.encoder, module.to_moments),
        (module.from_latents, module.decoder, module.to_pixels),
    ):
        counted = sum(parameter.numel() for part in parts for parameter in part.parameters())
        assert counted / 1e6 == pytest.approx(million, rel=0.005)


def test_two_to_five_times_fewer_multiplications_than_a_convolutional_vae():
    for variant, size in (("s-b-16", 256), ("s-b-16-512", 512)):
        assert 2 < SD_VAE_GMAC[size] / macs(on_meta(variant), 1)[1] < 5


def test_the_bottleneck_scales_alone():
    small, large = (METHOD.build(**{**SMALL["vitok"], "channels": channels}) for channels in (4, 8))
    assert large.bottleneck == 2 * small.bottleneck
    images = torch.rand(2, 3, 32, 32)
    bits = [module.encode(images, generator=torch.Generator()).bits for module in (small, large)]
    assert bits[0].tolist() == [16 * 4 * 32.0] * 2
    assert torch.equal(bits[1], 2 * bits[0])


def test_rotation_sees_only_how_far_apart_two_places_are():
    torch.manual_seed(0)
    rotary = AxialRotary(16, (1, 6, 6)).double()
    heads = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64).expand(2, 1, 1, 36, 16)
    query, key = (rotated(part, rotary((1, 6, 6))) for part in heads)
    scores = (query @ key.transpose(-1, -2)).reshape(6, 6, 6, 6)
    # The table of angles is float32.
    torch.testing.assert_close(scores[:4, :4, :4, :4], scores[2:, 2:, 2:, 2:], rtol=0, atol=1e-4)
    assert not torch.isclose(scores[0, 0, 0, 1], scores[0, 0, 1, 0])
    torch.testing.assert_close(query.norm(dim=-1), heads[0].norm(dim=-1), rtol=1e-6, atol=0)


def test_clips_of_another_length():
    torch.manual_seed(0)
    module = METHOD.build(**{**SMALL["vitok"], "tubelet": 2, "frames": 4}).eval()
    clips = torch.rand(2, 3, 8, 32, 32)
    latents = module.clip_posterior(clips).mean
    assert latents.shape == (2, module.channels, 4, 4, 4)
    assert module.decode_clips(latents).shape == clips.shape
    images = clips[:, :, 0]
    tokens = module.encode(images, generator=torch.Generator())
    assert tokens.lengths.tolist() == [16, 16]
    assert module.decode(tokens).shape == images.shape


def test_noise_comes_from_the_generator_alone():
    torch.manual_seed(0)
    module = METHOD.build(**SMALL["vitok"]).eval()
    images = torch.rand(2, 3, 32, 32)
    first, again = (module.encode(images, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first.latents, again.latents)
    other = module.encode(images, generator=torch.Generator().manual_seed(2))
    assert not torch.equal(first.latents, other.latents)


def test_sizes_that_do_not_divide():
    with pytest.raises(MethodError, match="multiples"):
        METHOD.build(**{**SMALL["vitok"], "patch_size": 7})
    with pytest.raises(MethodError, match="heads"):
        METHOD.build(**{**SMALL["vitok"], "encoder": {"width": 32, "layers": 1, "heads": 3}})
