"""MAGVIT-v2: sizes of the paper, signs as codes, a causal network, and one vocabulary for stills and clips."""

import pytest
import torch
from torch.nn import functional

from reference_impls.layers.causal_conv3d import AdaptiveNorm, CausalConv3d
from reference_impls.tokenizers.magvit_v2 import METHOD, joined_codes, split_codes
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError

VIDEO = {**SMALL["magvit-v2"], "ch_mult": [1, 1, 2], "time_kernel": 3, "time_levels": [0, 1]}
IMAGE = {**VIDEO, "time_kernel": 1, "time_levels": []}


def build(config, seed=0):
    torch.manual_seed(seed)
    return METHOD.build(**config).eval()


@pytest.fixture(scope="module")
def video():
    return build(VIDEO)


@pytest.fixture(scope="module")
def clips():
    return torch.rand(2, 3, 9, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("variant", METHOD.variants)
def test_sizes_of_the_paper(variant):
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants[variant].config)
    info = module.info
    assert (info.max_tokens, info.codebook_sizes, info.bits_per_token) == (256, (2**18,), 18.0)
    assert variant.endswith(str(info.image_size))


def test_a_clip_of_seventeen_frames_has_five_by_sixteen_by_sixteen_tokens():
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants["video-128"].config)
        latents = module.encoder(torch.zeros(1, 3, 17, 128, 128))
        assert latents.shape == (1, 18, 5, 16, 16)
        assert module.decoder(latents).shape == (1, 3, 17, 128, 128)


def test_a_code_is_the_signs_of_the_channels(video):
    signs = torch.tensor([[-1.0, -1, -1, -1, -1, -1], [1, -1, -1, -1, -1, -1], [-1, 1, -1, -1, -1, 1], [0] * 6])
    quantized = video.quantize(signs * 3)
    assert quantized.codes.tolist() == [0, 1, 34, 0]
    assert torch.equal(video.quantize.lookup(quantized.codes[:3]), signs[:3])
    assert not list(video.quantize.parameters())


def test_sub_tokens():
    codes = torch.tensor([[0, 2**18 - 1, 513, 5 * 512 + 7]])
    split = split_codes(codes, 18)
    assert split.tolist() == [[[0, 0], [511, 511], [1, 1], [7, 5]]]
    assert torch.equal(joined_codes(split, 18), codes)
    assert torch.equal(joined_codes(split_codes(codes, 18, 3), 18), codes)
    with pytest.raises(MethodError, match="18 bits"):
        split_codes(codes, 18, 4)


@pytest.mark.parametrize("stride", [(1, 1), (1, 2), (2, 2)])
def test_a_still_needs_the_last_frame_of_a_kernel_only(stride):
    torch.manual_seed(0)
    conv = CausalConv3d(4, 5, 3, 3, stride).double()
    clip = torch.randn(2, 4, 5, 8, 8, dtype=torch.float64)
    still = conv(clip[:, :, :1])
    torch.testing.assert_close(still, conv(clip)[:, :, :1])
    flat = functional.conv2d(clip[:, :, 0], conv.weight[:, :, -1], conv.bias, stride[1], 1)
    torch.testing.assert_close(still.squeeze(2), flat)


def test_no_frame_sees_a_later_one(video, clips):
    changed = clips.clone()
    changed[:, :, 5:] = 1 - changed[:, :, 5:]
    first, second = video.encode_clips(clips), video.encode_clips(changed)
    assert first.shape == (2, 3, 8, 8)
    assert torch.equal(first[:, :2], second[:, :2])
    assert not torch.equal(first[:, 2:], second[:, 2:])
    flipped = first.clone()
    flipped[:, 2:] ^= 1
    decoded, again = video.decode_clips(first), video.decode_clips(flipped)
    assert decoded.shape == clips.shape
    torch.testing.assert_close(decoded[:, :, :5], again[:, :, :5])
    assert not torch.allclose(decoded[:, :, 5:], again[:, :, 5:])


def test_the_past_is_seen(video, clips):
    changed = clips.clone()
    changed[:, :, 0] = 1 - changed[:, :, 0]
    with torch.no_grad():
        last, other = (video.encoder(clip)[:, :, -1] for clip in (clips, changed))
    assert not torch.allclose(last, other)


def test_a_still_has_the_codes_of_a_clip_s_first_frame(video, clips):
    codes = video.encode_clips(clips)
    images = clips[:, :, 0]
    tokens = video.encode(images)
    assert torch.equal(tokens.codes, codes[:, 0].flatten(1))
    assert tokens.bits.tolist() == [64 * 6.0] * 2
    torch.testing.assert_close(video.decode(tokens), video.decode_clips(codes)[:, :, 0].clamp(0, 1))


def test_an_inflated_tokenizer_codes_stills_as_the_image_tokenizer_did(clips):
    image, video = build(IMAGE, 1), build(VIDEO, 2)
    images = clips[:, :, 0]
    assert not torch.equal(video.encode(images).codes, image.encode(images).codes)
    video.inflate(image)
    tokens = image.encode(images)
    assert torch.equal(video.encode(images).codes, tokens.codes)
    torch.testing.assert_close(video.decode(tokens), image.decode(tokens))
    with pytest.raises(MethodError, match="same sizes"):
        video.inflate(build({**IMAGE, "num_res_blocks": 2}))


def test_the_decoder_s_norms_follow_the_latents_frame_by_frame():
    torch.manual_seed(0)
    norm = AdaptiveNorm(3, 32)
    hidden, latents = torch.randn(1, 32, 5, 4, 4), torch.randn(1, 3, 3, 2, 2)
    changed = latents.clone()
    changed[:, :, 1] += 1
    moved = (norm(hidden, changed) - norm(hidden, latents)).abs().amax((0, 1, 3, 4)) > 1e-3
    assert moved.tolist() == [False, True, True, False, False]


def test_frames_that_do_not_fit(video, clips):
    with pytest.raises(MethodError, match=r"1 \+ 4 n frames, got 8"):
        video.encode_clips(clips[:, :, :8])
    for bad in ({"image_size": 34}, {"time_kernel": 1}, {"time_levels": [2]}):
        with pytest.raises(MethodError):
            METHOD.build(**{**VIDEO, **bad})


def test_trains(clips):
    module = build(VIDEO)
    quantized = module.quantize_clips(clips[:, :, :5])
    loss = module.decode_latents(quantized.quantized).square().mean() + quantized.loss
    loss.backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
