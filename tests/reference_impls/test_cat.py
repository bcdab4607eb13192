"""CAT: complexity chooses the length of each image and nothing else; one network nests all ratios."""

import pytest
import torch

from reference_impls.layers.caption_complexity import caption_score, caption_scores, pixel_scores
from reference_impls.tokenizers.cat import METHOD
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError, Tokens

CONFIG = {**SMALL["cat"], "rule": "scores"}
LENGTHS = [16, 4, 1]
SCORES = torch.tensor([9, 5, 1])


@pytest.fixture(scope="module")
def cat():
    torch.manual_seed(0)
    return METHOD.build(**CONFIG).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("variant", METHOD.variants)
def test_latents_of_the_paper(variant):
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants[variant].config)
    positions = [1024, 256, 64]
    if variant.startswith("fixed"):
        ratio = int(variant.removeprefix("fixed-"))
        positions = [(256 // ratio) ** 2]
    assert module.counts == positions
    assert module.info.max_tokens == positions[0]
    assert module.info.variable_length == (len(positions) > 1)
    for index, count in enumerate(positions):
        posterior = module.posterior(torch.zeros(2, 3, 256, 256, device="meta"), index)
        assert posterior.mean.flatten(2).shape == (2, 16, count)
        assert module.decode_latents(torch.zeros(2, count, 16, device="meta"), index).shape == (2, 3, 256, 256)


@pytest.mark.parametrize(("score", "length"), [(1, 1), (3.99, 1), (4, 4), (6, 4), (6.99, 4), (7, 16), (9, 16)])
def test_thresholds(cat, images, score, length):
    assert cat.encode(images[:1], generator=seeded(), complexity=torch.tensor([score])).lengths.tolist() == [length]


def test_lengths_bits_and_the_compression_ratio(cat, images):
    tokens = cat.encode(images, generator=seeded(), complexity=SCORES)
    assert tokens.lengths.tolist() == LENGTHS
    assert tokens.bits.tolist() == [length * cat.channels * 32.0 for length in LENGTHS]
    assert tokens.latents.shape == (3, 16, cat.channels)
    for row, length in enumerate(LENGTHS):
        assert not tokens.latents[row, length:].any()
        assert tokens.latents[row, :length].all()
    ratios = 3 * 32 * 32 / (tokens.lengths * cat.channels)
    assert ratios.tolist() == [3072 / (length * cat.channels) for length in LENGTHS]
    # Shares of the ratios and their positions give the mean: 1/4 of 16, 1/2 of 4 and 1/4 of 1.
    mixed = cat.encode(images[[0, 1, 2, 0]], generator=seeded(), complexity=torch.tensor([8, 6, 4, 2]))
    assert mixed.lengths.double().mean() == 16 / 4 + 4 / 2 + 1 / 4
    only_small = cat.encode(images, generator=seeded(), complexity=torch.ones(3))
    assert only_small.latents.shape == (3, 1, cat.channels)


def test_another_complexity_changes_its_image_and_no_other(cat, images):
    before = cat.encode(images, generator=seeded(), complexity=SCORES)
    after = cat.encode(images, generator=seeded(), complexity=torch.tensor([9, 8, 1]))
    assert after.lengths.tolist() == [16, 16, 1]
    for row in (0, 2):
        torch.testing.assert_close(after.latents[row], before.latents[row])
    torch.testing.assert_close(cat.decode(after)[0], cat.decode(before)[0])
    assert not torch.allclose(after.latents[1, :4], before.latents[1, :4])
    same = cat.encode(images, generator=seeded(), complexity=torch.tensor([7, 4, 3]))
    assert torch.equal(same.latents, before.latents)


def test_images_do_not_depend_on_their_batch(cat, images):
    tokens = cat.encode(images, generator=seeded(), complexity=SCORES)
    decoded = cat.decode(tokens)
    generator = seeded()
    for row, length in enumerate(LENGTHS):
        alone = cat.encode(images[row : row + 1], generator=generator, complexity=SCORES[row : row + 1])
        assert alone.latents.shape == (1, length, cat.channels)
        torch.testing.assert_close(alone.latents[0], tokens.latents[row, :length])
        torch.testing.assert_close(cat.decode(alone)[0], decoded[row], rtol=0, atol=1e-5)


def test_what_is_behind_a_shorter_code_is_not_read(cat, images):
    tokens = cat.encode(images, generator=seeded(), complexity=SCORES)
    filled = tokens.latents.clone()
    filled[1, 4:], filled[2, 1:] = 7.0, torch.nan
    other = Tokens(lengths=tokens.lengths, bits=tokens.bits, latents=filled)
    assert torch.equal(cat.decode(other), cat.decode(tokens))


def test_a_length_for_all(cat, images):
    for length in LENGTHS:
        tokens = cat.encode(images, tokens=length, generator=seeded())
        assert tokens.lengths.tolist() == [length] * 3
    with pytest.raises(MethodError, match="16, 4, 1 tokens: tokens=5"):
        cat.encode(images, tokens=5, generator=seeded())


def test_ratios_are_nested_in_one_network(cat, images):
    used = []
    for index, length in enumerate(LENGTHS):
        cat.zero_grad()
        posterior = cat.posterior(images, index)
        cat.decode_latents(posterior.mean.flatten(2).transpose(1, 2), index).square().mean().backward()
        assert posterior.mean.flatten(2).shape[2] == length
        used.append({name for name, parameter in cat.named_parameters() if parameter.grad is not None})
    own = [{name for name in names if ".exits." in name or ".entries." in name} for names in used]
    assert [len(names) for names in own] == [4, 4, 0]
    shared = [names - few for names, few in zip(used, own, strict=True)]
    assert shared[0] < shared[1] < shared[2]
    assert set.union(*used) == {name for name, _ in cat.named_parameters()}


def test_a_caption_of_more_is_more_complex():
    plain = "A blue sky"
    busy = "A crowd of people in a street full of shops, cars and a newspaper stand; every sign has text on it"
    assert caption_score("") == 1
    assert caption_score(plain) < caption_score(busy) == 9
    assert caption_score("a red cup") + 2 == caption_score("a red sign")
    assert caption_score("a red cup") + 1 == caption_score("a red face")
    assert caption_scores([plain, busy]).tolist() == [caption_score(plain), 9]


def test_captions_reach_the_encoder(cat, images):
    captions = ["A blue sky", "Two dogs with a yellow ball run over green grass near trees and a lake", "text " * 9]
    tokens = cat.encode(images, generator=seeded(), complexity=caption_scores(captions))
    assert tokens.lengths.tolist() == [1, 4, 1]
    captions[1] += "; a sign with writing; people"
    tokens = cat.encode(images, generator=seeded(), complexity=caption_scores(captions))
    assert tokens.lengths.tolist() == [1, 16, 1]


def test_pixels_stand_in_where_nobody_gives_scores(images):
    module = METHOD.build(**{**CONFIG, "rule": "pixels"}).eval()
    flat = torch.full((1, 3, 32, 32), 0.3)
    assert pixel_scores(torch.cat([flat, images[:1]])).tolist() == [1.0, 9.0]
    mixed = module.encode(torch.cat([flat, images[:1]]), generator=seeded())
    assert mixed.lengths.tolist() == [1, 16]
    told = module.encode(flat, generator=seeded(), complexity=torch.tensor([9]))
    assert told.lengths.tolist() == [16]


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (None, "how complex"),
        (torch.tensor([1, 2]), r"\(3,\)"),
        (torch.tensor([[1, 2, 3]]), r"\(3,\)"),
        (torch.tensor([0, 2, 3]), "1 to 9"),
        (torch.tensor([1.0, 2.0, torch.nan]), "1 to 9"),
        (torch.tensor([1, 2, 10]), "1 to 9"),
        (torch.tensor([True, True, False]), "numbers"),
    ],
)
def test_bad_scores(cat, images, scores, words):
    with pytest.raises(MethodError, match=words):
        cat.encode(images, generator=seeded(), complexity=scores)


def test_bad_lengths_to_decode(cat, images):
    tokens = cat.encode(images, generator=seeded(), complexity=SCORES)
    for lengths in ([16, 4], [16, 4, 2]):
        with pytest.raises(MethodError, match="lengths must be 16, 4, 1"):
            cat.decode(Tokens(lengths=torch.tensor(lengths), bits=tokens.bits, latents=tokens.latents))
    with pytest.raises(MethodError, match="lengths must be"):
        cat.decode(Tokens(lengths=tokens.lengths, bits=tokens.bits, latents=tokens.latents[:, :4]))


@pytest.mark.parametrize(
    "bad",
    [
        {"ratios": (32, 8)},
        {"ratios": (8, 12)},
        {"image_size": 48},
        {"thresholds": (4,)},
        {"thresholds": (7, 4)},
        {"rule": "llm"},
        {"ch_mult": (1, 1, 1)},
    ],
)
def test_bad_sizes(bad):
    with pytest.raises(MethodError):
        METHOD.build(**{**CONFIG, **bad})
