"""JPEG, WebP and AVIF as tokenizers: their tokens are exactly the bytes of the files."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from reference_impls.tokenizers import avif, jpeg, webp
from tokenmark.contracts import MethodError, Tokens

METHODS = {"AVIF": avif.METHOD, "JPEG": jpeg.METHOD, "WEBP": webp.METHOD}


def picture(count=2, size=32):
    """Smooth images with an edge, unlike one another."""
    ramp = torch.linspace(0, 1, size)
    rows = torch.stack(
        [ramp[:, None] * ramp, ramp[:, None].expand(size, size), (ramp > 0.5).float().expand(size, size)]
    )
    return torch.stack([rows * (i + 1) / count for i in range(count)])


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


def codec(name, variant="q75", **config):
    method = METHODS[name]
    return method.build(**{**method.variants[variant].config, **config})


def file_of(tokens, index):
    return bytes(tokens.codes[index, : tokens.lengths[index]].tolist())


def test_tokens_are_the_bytes_of_a_file_that_pillow_reads(name):
    module, images = codec(name), picture()
    tokens = module.encode(images)
    assert tokens.bits.tolist() == [8.0 * length for length in tokens.lengths.tolist()]
    assert tokens.codes.shape[1] == tokens.lengths.max()
    decoded = module.decode(tokens)
    for index in range(2):
        with Image.open(io.BytesIO(file_of(tokens, index))) as image:
            assert image.format == name
            expected = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1) / 255
        assert torch.equal(decoded[index], expected)
        assert not tokens.codes[index, tokens.lengths[index] :].any()


def test_pixels_are_rounded_to_eight_bits(name):
    module = codec(name, "q95")
    low, high = torch.full((1, 3, 32, 32), 99.6 / 255), torch.full((1, 3, 32, 32), 100.4 / 255)
    assert file_of(module.encode(low), 0) == file_of(module.encode(high), 0)


def test_the_best_file_within_so_many_bytes(name):
    """As long as it may be, and one step of quality more would be too long."""
    module, images = codec(name, "q95"), picture()
    whole = module.encode(images)
    most = int(whole.lengths.min()) - 20
    short = module.encode(images, tokens=most)
    assert (short.lengths <= most).all()
    assert short.bits.tolist() == [8.0 * length for length in short.lengths.tolist()]
    qualities = {quality: codec(name, image_size=32, quality=quality).encode(images).lengths for quality in range(96)}
    for index in range(2):
        fitting = [quality for quality, lengths in qualities.items() if lengths[index] <= most]
        chosen = next(quality for quality, lengths in qualities.items() if lengths[index] == short.lengths[index])
        assert chosen in fitting
        assert qualities[min(chosen + 4, 95)][index] > most or chosen == max(fitting)
    assert torch.equal(module.encode(images, tokens=10**6).codes, whole.codes)
    with pytest.raises(MethodError, match="tokens=12 cannot be had"):
        module.encode(images, tokens=12)


@pytest.mark.parametrize("side", [32, 256])
def test_quality_trades_bytes_for_error(name, side):
    images = picture(1, side)
    sizes, errors = [], []
    for variant, chosen in METHODS[name].variants.items():
        if chosen.config["image_size"] != side:
            continue
        module = codec(name, variant)
        tokens = module.encode(images)
        sizes.append(int(tokens.lengths))
        errors.append(float((module.decode(tokens) - images).square().mean()))
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]
    assert errors[0] > errors[-1]


def test_damaged_files_are_an_error_of_one_line(name):
    module = codec(name)
    tokens = module.encode(picture(1))
    zeroed = tokens.codes.clone()
    zeroed[:, :12] = 0
    half = int(tokens.lengths) // 2
    for codes in (zeroed, tokens.codes[:, :half], tokens.codes[:, :1]):
        damaged = Tokens(lengths=torch.tensor([codes.shape[1]]), bits=tokens.bits, codes=codes)
        with pytest.raises(MethodError, match=f"not a readable {name} file"):
            module.decode(damaged)


def test_files_of_another_size_or_format_are_refused(name):
    other_size = codec(name, image_size=16).encode(picture(1, 16))
    with pytest.raises(MethodError, match="16x16 image, not 32x32"):
        codec(name).decode(other_size)
    other = {"AVIF": "JPEG", "JPEG": "WEBP", "WEBP": "AVIF"}[name]
    with pytest.raises(MethodError, match="not a readable"):
        codec(name).decode(codec(other).encode(picture(1)))


def test_lengths_must_fit_the_codes(name):
    tokens = codec(name).encode(picture(1))
    for length in (0, tokens.codes.shape[1] + 1):
        with pytest.raises(MethodError, match="lengths must be"):
            codec(name).decode(Tokens(lengths=torch.tensor([length]), bits=tokens.bits, codes=tokens.codes))


def test_settings_are_checked(name):
    for config in ({"quality": 101}, {"quality": 7.5}, {"image_size": 0}):
        with pytest.raises(MethodError, match="must be a whole number"):
            codec(name, **config)
