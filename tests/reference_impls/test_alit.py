"""ALIT: sizes, lengths of each image's own, patches that are left out by chance."""

import pytest
import torch

from reference_impls.tokenizers.alit import METHOD, first_below
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError, Tokens


@pytest.mark.parametrize(
    ("variant", "values"),
    [
        ("small-vqgan-quantized", 262_048_399),
        ("small-vqgan-continuous", 261_999_247),
        ("small-vae-quantized", 272_107_999),
        ("small-vae-continuous", 272_058_847),
        ("base-vqgan-quantized", 228_689_551),
        ("semilarge-vqgan-quantized", 463_587_983),
    ],
)
def test_released_sizes(variant, values):
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants[variant].config)
    assert sum(value.numel() for value in module.state_dict().values()) == values
    assert module.info.max_tokens == 256
    assert module.info.bits_per_token == (12 if variant.endswith("quantized") else 12 * 32)


def built(**changes):
    torch.manual_seed(0)
    return METHOD.build(**{**SMALL["alit"], **changes}).eval()


def encoded(module, images, tokens=None, seed=0):
    return module.encode(images, tokens, torch.Generator().manual_seed(seed))


def part(tokens, index, length=None):
    one = slice(index, index + 1)
    return Tokens(lengths=tokens.lengths[one], bits=tokens.bits[one], codes=tokens.codes[one, :length])


def test_the_first_round_below_the_threshold_or_the_nearest():
    distances = torch.tensor([[0.5, 0.9, 0.3], [0.4, 0.7, 0.3], [0.1, 0.7, 0.8], [0.2, 0.8, 0.1]])
    assert first_below(distances, 0.45).tolist() == [1, 1, 0]
    assert first_below(distances, 0.4).tolist() == [2, 1, 0]
    assert first_below(distances, 0.0).tolist() == [2, 1, 3]


def test_lengths_are_each_images_own():
    module, images = built(), torch.rand(6, 3, 32, 32)
    with torch.no_grad():
        latents, codes = module.base_tokenizer.latents(images)
        distances = module.distances(module.rollout(images, 1, latents, codes, torch.ones(1, 6, 64)), images)
    module.select_threshold = float(distances[0].median())  # some images are near enough after the first round
    tokens = encoded(module, images)
    lengths = tokens.lengths.tolist()
    assert lengths[int(distances[0].argmin())] == 4
    assert max(lengths) > 4
    assert tokens.bits.tolist() == [6.0 * length for length in lengths]
    assert all(not row[length:].any() for row, length in zip(tokens.codes, lengths, strict=True))
    together = module.decode(tokens)
    for index, length in enumerate(lengths):  # what lies behind an image's own length is not seen
        torch.testing.assert_close(
            module.decode(part(tokens, index, length)), together[index : index + 1], atol=1e-3, rtol=0
        )


def test_no_more_tokens_than_asked_for():
    module, images = built(), torch.rand(3, 3, 32, 32)
    assert encoded(module, images, 4).lengths.tolist() == [4, 4, 4]
    assert (encoded(module, images, 11).lengths <= 8).all()
    whole, least = encoded(module, images), encoded(module, images, 16)
    assert torch.equal(whole.codes, least.codes)
    with pytest.raises(MethodError, match="shortest code has 4"):
        encoded(module, images, 3)


def test_a_patch_goes_with_the_probability_that_it_is_told():
    module, images = built(halting_threshold=0.0), torch.rand(1, 3, 32, 32)
    latents, codes = module.base_tokenizer.latents(images)
    never, always = torch.ones(2, 1, 64), torch.zeros(2, 1, 64)
    kept, gone = (module.rollout(images, 2, latents, codes, draws) for draws in (never, always))
    torch.testing.assert_close(kept[0].encoded, gone[0].encoded)
    assert not torch.allclose(kept[1].encoded, gone[1].encoded)
    module.halting_threshold = 1.1  # no probability is large enough
    torch.testing.assert_close(module.rollout(images, 2, latents, codes, always)[1].encoded, kept[1].encoded)


def test_draws_are_the_same_however_images_are_batched():
    module, images = built(halting_threshold=0.0), torch.rand(3, 3, 32, 32)
    whole = encoded(module, images)
    generator = torch.Generator().manual_seed(0)
    parts = [module.encode(images[rows], None, generator) for rows in (slice(0, 1), slice(1, 3))]
    assert torch.equal(torch.cat([one.codes for one in parts]), whole.codes)
    assert torch.equal(torch.cat([one.lengths for one in parts]), whole.lengths)


def test_continuous_tokens_of_a_vae():
    vae = {"ch": 32, "ch_mult": [1, 1, 1], "num_res_blocks": 1, "z_channels": 4}
    module, images = built(base={"vae": vae}, codebook_size=None), torch.rand(2, 3, 32, 32)
    tokens = encoded(module, images)
    assert tokens.latents.shape == (2, 16, 12)
    assert torch.equal(tokens.latents, encoded(module, images).latents)
    assert not torch.equal(tokens.latents, encoded(module, images, seed=1).latents)
    assert module.decode(tokens).shape == images.shape


def test_there_are_positions_for_256_tokens():
    with pytest.raises(MethodError, match="256"):
        built(rounds=65)
