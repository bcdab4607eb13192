"""What the parity vectors do not show of LARP."""

import pytest
import torch

from reference_impls.layers.larp_priors import LarpAr
from reference_impls.layers.token_checks import pack_codes
from reference_impls.tokenizers.larp import METHOD, release_arguments
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return METHOD.build(**SMALL["larp"]).eval()


def generator():
    return torch.Generator().manual_seed(0)


def test_official_size():
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants["l-long"].config)
    info = module.info
    assert (info.max_tokens, info.codebook_sizes, info.image_size) == (1024, (8192,), 128)
    # README.md: 173M, which the training prior is no part of.
    assert info.parameters - sum(p.numel() for p in module.prior_model.parameters()) == pytest.approx(173e6, rel=0.006)


def test_an_image_is_a_clip_that_stands_still(small):
    images = torch.rand(2, 3, 32, 32)
    clips = images[:, :, None].repeat(1, 1, 4, 1, 1)
    tokens = small.encode(images)
    assert torch.equal(tokens.codes, small.encode_video(clips).codes)
    decoded = small.decode_video(tokens)
    assert decoded.shape == (2, 3, 4, 32, 32)
    assert torch.equal(small.decode(tokens), decoded[:, :, 0])


def test_shorter_clips(small):
    clips = torch.rand(1, 3, 4, 32, 32)
    tokens = small.encode_video(clips[:, :, :2])
    assert tokens.codes.shape == (1, 16)
    assert small.decode_video(tokens, frames=2).shape == (1, 3, 2, 32, 32)
    for frames in (0, 3, 6):
        with pytest.raises(MethodError, match="multiple of 2 frames up to 4"):
            small.encode_video(clips[:, :, :1].repeat(1, 1, frames, 1, 1))
        with pytest.raises(MethodError, match="multiple of 2 frames up to 4"):
            small.decode_video(tokens, frames=frames)
    for bad in (clips[:, :, 0], clips[:, :1], clips.to(torch.uint8), clips[..., :16]):
        with pytest.raises(MethodError, match=r"\(B, 3, T, 32, 32\)"):
            small.encode_video(bad)


def test_codes_are_drawn_only_if_asked(small):
    assert not small.info.stochastic
    drawn = METHOD.build(**SMALL["larp"], sample_codes=True).eval()
    drawn.load_state_dict(small.state_dict())
    images = torch.rand(3, 3, 32, 32)
    codes = drawn.encode(images, generator=generator()).codes
    assert torch.equal(codes, drawn.encode(images, generator=generator()).codes)
    assert torch.equal(codes[:1], drawn.encode(images[:1], generator=generator()).codes)
    with pytest.raises(MethodError, match="Generator"):
        drawn.encode(images)
    drawn.temperature = 1e-4
    assert torch.equal(drawn.encode(images, generator=generator()).codes, small.encode(images).codes)


def test_drawn_codes_follow_the_softmax_of_cosines(small):
    bottleneck, latent = small.bottleneck, torch.randn(8, generator=generator())
    cosines = torch.nn.functional.normalize(latent, dim=0) @ bottleneck.regularizer.codebook().T
    noise = torch.randn(1, 40_000, generator=generator())
    codes = bottleneck.sample(latent.expand(1, 40_000, 8), noise, temperature=0.3)
    found = torch.bincount(codes.flatten(), minlength=64) / 40_000
    torch.testing.assert_close(found, (cosines / 0.3).softmax(0), atol=0.01, rtol=0)
    extremes = bottleneck.sample(latent.expand(1, 2, 8), torch.tensor([[-40.0, 40.0]]), temperature=0.3)
    assert extremes.tolist() == [[0, 63]]


def test_patches_that_do_not_fit():
    with pytest.raises(MethodError, match="do not divide"):
        METHOD.build(**SMALL["larp"] | {"frames": 5})
    config = {"patch_size": 8, "decoder_patch_size": 4, "temporal_patch_size": 1, "decoder_temporal_patch_size": 1}
    with pytest.raises(MethodError, match="decoder_patch_size"):
        release_arguments(config)


def test_the_generator_writes_codes_that_the_tokenizer_reads(small):
    sizes = {"dim": 32, "n_layer": 2, "n_head": 2, "vocab_size": 64, "max_seq_len": 16, "num_classes": 3}
    model = LarpAr(**sizes, multiple_of=16).eval()
    codes = model.generate(torch.tensor([0, 2]), cfg_scale=1.25)
    assert small.decode_video(pack_codes(codes, 64)).shape == (2, 3, 4, 32, 32)
    with torch.no_grad():
        free = model.generate(torch.tensor([1]))
        assert torch.equal(model(free[:, :-1], torch.tensor([1])).argmax(-1), free)
    assert model.generate(torch.zeros(0, dtype=torch.int64)).shape == (0, 16)
