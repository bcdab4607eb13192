"""What holds for every tokenizer: its contract, and one clear line for bad input."""

import math

import pytest
import torch

from reference_impls.tokenizers import jpeg, maskgit_vq, one_d_piece, titok, webp
from tokenmark.contracts import MethodError, Tokenizer, Tokens

SMALL = {"maskgit-vq": "mini", "titok": "mini-16", "one-d-piece": "mini-16", "jpeg": "q50", "webp": "q50"}
METHODS = {module.METHOD.id: module.METHOD for module in (jpeg, maskgit_vq, one_d_piece, titok, webp)}


@pytest.fixture(scope="module", params=METHODS)
def tokenizer(request):
    torch.manual_seed(0)
    method = METHODS[request.param]
    return method.build(**method.variants[SMALL[request.param]].config).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def small(variant):
    """Whether a variant is for the embedded images, whose weights are in the repository."""
    return variant.config.get("image_size") == 32


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_names_and_papers(method):
    assert method.id == method.build.__module__.rsplit(".", 1)[-1].replace("_", "-")
    assert method.paper.url.startswith("https://")
    assert "\n" not in method.idea
    for variant in method.variants.values():
        has_state = bool(getattr(method.build(**variant.config), "state_dict", dict)()) if small(variant) else True
        assert (variant.weights is not None) == (small(variant) and has_state)


def test_contract(tokenizer, images):
    assert isinstance(tokenizer, Tokenizer)
    info = tokenizer.info
    tokens = tokenizer.encode(images)
    assert tokens.codes.dtype == tokens.lengths.dtype == torch.int64
    assert tokens.bits.dtype == torch.float64
    assert tokens.codes.shape == (2, info.max_tokens or int(tokens.lengths.max()))
    assert info.bits_per_token == math.log2(info.codebook_sizes[0])
    assert tokens.bits.tolist() == [length * info.bits_per_token for length in tokens.lengths.tolist()]
    decoded = tokenizer.decode(tokens)
    assert decoded.shape == images.shape
    assert decoded.dtype == torch.float32
    assert decoded.min() >= 0
    assert decoded.max() <= 1
    assert not decoded.requires_grad
    assert info.parameters == sum(parameter.numel() for parameter in tokenizer.parameters())


def test_codes_do_not_depend_on_the_batch(tokenizer, images):
    together = tokenizer.encode(images)
    for index in range(2):
        alone = tokenizer.encode(images[index : index + 1])
        length = int(alone.lengths)
        assert torch.equal(alone.codes[0], together.codes[index, :length])


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "floating point"),
        (torch.zeros(1, 3, 31, 32), r"\(B, 3, 32, 32\), got \(1, 3, 31, 32\)"),
        (torch.zeros(1, 3, 64, 64), r"\(B, 3, 32, 32\)"),
        (torch.zeros(1, 1, 32, 32), r"\(B, 3, 32, 32\)"),
        (torch.zeros(3, 32, 32), r"\(B, 3, 32, 32\), got \(3, 32, 32\)"),
    ],
)
def test_bad_images(tokenizer, bad, words):
    with pytest.raises(MethodError, match=words) as caught:
        tokenizer.encode(bad)
    assert "\n" not in str(caught.value)


def test_lengths_that_cannot_be_given(tokenizer, images):
    for tokens in (0, -1, 17, 65):
        with pytest.raises(MethodError, match="tokens"):
            tokenizer.encode(images, tokens=tokens)
    longest = tokenizer.info.max_tokens
    if longest is not None:
        assert tokenizer.encode(images, tokens=longest).codes.shape == (2, longest)
    if not tokenizer.info.variable_length:
        with pytest.raises(MethodError, match="tokens=3"):
            tokenizer.encode(images, tokens=3)


def test_bad_codes(tokenizer, images):
    good = tokenizer.encode(images)
    size = tokenizer.info.codebook_sizes[0]
    too_big, negative = good.codes.clone(), good.codes.clone()
    too_big[1, -1], negative[0, 0] = size, -1
    bad = [(too_big, f"0 to {size - 1}"), (negative, "got -1"), (good.codes.int(), "int64"), (good.codes[0], "B, N")]
    if tokenizer.info.max_tokens is not None:
        longer = torch.cat([good.codes, good.codes], dim=1)
        bad += [(longer, "tokens per image"), (good.codes[:, :0], "tokens per image")]
    for codes, words in bad:
        with pytest.raises(MethodError, match=words):
            tokenizer.decode(Tokens(lengths=good.lengths, bits=good.bits, codes=codes))
    with pytest.raises(MethodError, match="continuous latents"):
        tokenizer.decode(Tokens(lengths=good.lengths, bits=good.bits, latents=torch.zeros(2, 16, 12)))


def test_an_empty_batch(tokenizer):
    tokens = tokenizer.encode(torch.zeros(0, 3, 32, 32))
    assert len(tokens.codes) == len(tokens.lengths) == len(tokens.bits) == 0
    assert tokenizer.decode(tokens).shape == (0, 3, 32, 32)


def test_runs_in_double_and_under_bfloat16(tokenizer, images):
    plain = tokenizer.decode(tokenizer.encode(images))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = tokenizer.encode(images)
        rough = tokenizer.decode(tokens)
    assert rough.dtype == torch.float32
    assert rough.isfinite().all()
    tokenizer.double()
    try:
        tokens = tokenizer.encode(images.double())
        exact = tokenizer.decode(tokens)
    finally:
        tokenizer.float()
    assert exact.shape == plain.shape
    assert exact.dtype == (torch.float64 if tokenizer.info.parameters else torch.float32)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_mini_weights_stay_under_two_megabytes(method):
    for variant in method.variants.values():
        if variant.weights is not None:
            assert method.build(**variant.config).info.parameters * 4 < 2_000_000
