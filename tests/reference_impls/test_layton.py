"""Layton: tokens and networks of the paper, what is frozen, the control, and one or two steps."""

import math

import pytest
import torch

from reference_impls.layers.text_unet import TextUNet, UNetSize
from reference_impls.tokenizers.layton import METHOD, signal_and_noise
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError, Tokens

CONFIG = SMALL["layton"]


def build(**others):
    torch.manual_seed(0)
    return METHOD.build(**{**CONFIG, **others}).eval()


def awake(module):
    """Give the convolutions of zeros weights, as training does."""
    for conv in (*module.control.zero, module.control.hint[-1]):
        torch.nn.init.normal_(conv.weight, std=0.3)
    return module


@pytest.fixture(scope="module")
def trained():
    return awake(build())


@pytest.fixture(scope="module")
def codes():
    return torch.randint(64, (2, 16), generator=torch.Generator().manual_seed(0))


def noise_of(module, seed=0, batch=2):
    shape = (batch, len(module.steps), 4, module.side, module.side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("variant", "tokens", "steps"), [("h-196", 196, 1), ("h-256", 256, 1), ("h-324", 324, 1), ("t-256", 256, 2)]
)
def test_sizes_of_the_paper(variant, tokens, steps):
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants[variant].config)
        small = torch.zeros(1, 3, module.code_size, module.code_size)
        assert module.quant_conv(module.encoder(small)).flatten(2).shape == (1, 8, tokens)
    info = module.info
    assert (info.image_size, info.max_tokens, info.codebook_sizes) == (1024, tokens, (16384,))
    assert info.bits_per_token == 14
    assert (module.side, len(module.steps)) == (128, steps)
    assert info.draws_to_decode
    assert not info.stochastic
    if tokens == 256:
        vqgan = (1024 // 16) ** 2  # tokens of a VQGAN that halves four times
        assert vqgan / tokens == 16
        assert info.max_tokens * info.bits_per_token == 3584


def test_parameters_of_sdxl():
    with torch.device("meta"):
        module = METHOD.build()
    assert sum(parameter.numel() for parameter in module.unet.parameters()) == 2_567_463_684
    assert sum(parameter.numel() for parameter in module.vae.parameters()) == 83_653_863


def test_only_the_copy_and_its_joints_are_trained(trained, codes):
    trained.zero_grad()
    images = trained.decode_pixels(codes, noise_of(trained))
    images.square().mean().backward()  # supervised in pixels, through the frozen VAE and U-Net
    for name, parameter in trained.named_parameters():
        assert parameter.requires_grad == name.startswith("control."), name
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert all(parameter.grad.abs().sum() > 0 for parameter in trained.control.zero.parameters())


def test_untrained_the_frozen_model_answers_alone(codes):
    module = build()
    module.start_control()
    own = module.unet.contracting.state_dict()
    assert all(torch.equal(weight, own[name]) for name, weight in module.control.contracting.state_dict().items())
    noise = noise_of(module)
    other = (codes + 1) % 64
    assert torch.equal(module.decode_pixels(codes, noise), module.decode_pixels(other, noise))
    latents, times = noise[:, 0], torch.full((2,), 800)
    alone = module.unet(latents, times, module.context.expand(2, -1, -1), module.vector.expand(2, -1))
    torch.testing.assert_close(module.predict(latents, times, module.picture(codes)), alone)


def test_codes_reach_their_image_and_no_other(trained, codes):
    noise = noise_of(trained)
    changed = codes.clone()
    changed[1, 5] = (changed[1, 5] + 1) % 64
    with torch.no_grad():
        first, second = trained.decode_pixels(codes, noise), trained.decode_pixels(changed, noise)
    torch.testing.assert_close(first[0], second[0])
    assert (first[1] - second[1]).abs().max() > 1e-3


def test_a_code_is_repeated_over_its_part_of_the_latents(trained, codes):
    picture = trained.picture(codes)
    assert picture.shape == (2, 8, 16, 16)
    rows = trained.quantize.lookup(codes).reshape(2, 4, 4, 8).movedim(3, 1)
    assert torch.equal(picture, rows.repeat_interleave(4, 2).repeat_interleave(4, 3))


def test_the_constant_text_is_read(trained, codes):
    noise = noise_of(trained)
    with torch.no_grad():
        before = trained.decode_pixels(codes, noise)
        for name in ("context", "vector"):
            constant = getattr(trained, name)
            constant.normal_(generator=torch.Generator().manual_seed(1))
            assert not torch.allclose(trained.decode_pixels(codes, noise), before, atol=1e-4)
            constant.zero_()
    assert {"context", "vector"} <= set(trained.state_dict())


def test_one_step_takes_away_the_predicted_noise(trained, codes):
    noise = noise_of(trained)
    signal, share = signal_and_noise(800)
    with torch.no_grad():
        predicted = trained.predict(noise[:, 0], torch.full((2,), 800), trained.picture(codes))
        clean = (noise[:, 0] - share * predicted) / signal
        images = trained.vae.decode(clean / 0.13025) / 2 + 0.5
        torch.testing.assert_close(trained.decode_pixels(codes, noise), images)


def test_two_steps(codes):
    module = awake(build(steps=(999, 499)))
    noise, other = noise_of(module), noise_of(module)
    other[:, 1] += 1
    with torch.no_grad():
        first, second = module.decode_pixels(codes, noise), module.decode_pixels(codes, other)
    assert not torch.allclose(first, second)


def test_schedule():
    signal, share = signal_and_noise(999)
    assert signal**2 + share**2 == pytest.approx(1)
    assert signal**2 == pytest.approx(0.0047, abs=1e-4)  # what stable diffusion's last step keeps
    assert math.isclose(signal_and_noise(0)[0] ** 2, 1 - 0.00085)


def test_noise_comes_from_the_generator_alone(trained, codes):
    tokens = Tokens(lengths=torch.full((2,), 16), bits=torch.full((2,), 96.0), codes=codes)
    first, again, other = (trained.decode(tokens, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    generator = torch.Generator().manual_seed(1)
    for row in range(2):
        one = Tokens(lengths=tokens.lengths[:1], bits=tokens.bits[:1], codes=codes[row : row + 1])
        torch.testing.assert_close(trained.decode(one, generator)[0], first[row], rtol=0, atol=1e-5)
    with pytest.raises(MethodError, match="decode"):
        trained.decode(tokens)


@pytest.mark.parametrize(
    "bad", [{"steps": ()}, {"steps": (499, 999)}, {"steps": (1000,)}, {"code_size": 18}, {"unet": {"channels": 3}}]
)
def test_bad_sizes(bad):
    with pytest.raises(MethodError):
        METHOD.build(**{**CONFIG, **bad})


def test_a_u_net_needs_a_depth_per_level():
    with pytest.raises(MethodError, match="depth per level"):
        TextUNet(UNetSize(ch_mult=(1, 2)))
