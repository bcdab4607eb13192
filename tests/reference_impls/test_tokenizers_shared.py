"""What holds for every tokenizer: its contract, and one clear line for bad input."""

import inspect
import math
import re

import pytest
import torch

from tests.reference_impls.small_tokenizers import SMALL
from tokenmark import build, layouts, registry
from tokenmark.contracts import MethodError, Tokenizer, TokenizerMethod, Tokens
from tokenmark.errors import WeightsError

METHODS = {
    name: registry.get_as(TokenizerMethod, name)
    for name in registry.locations()
    if isinstance(registry.get(name), TokenizerMethod)
}
NO_PIXELS = {"seed": "its tokens stand for an embedding, which needs a unCLIP decoder"}
"""Tokenizers that decode to something else than images, and why."""
OWN_BITS = {
    "cat": "images differ in their length and latents in their number",
    "gaussiantoken": "a token is a code with five numbers beside it",
}
"""Tokenizers whose latents are not 32 bits a channel, and why."""


@pytest.fixture(scope="module", params=METHODS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def tokenizer(name):
    torch.manual_seed(0)
    built = METHODS[name].build(**SMALL[name])
    return built.eval() if isinstance(built, torch.nn.Module) else built


@pytest.fixture(scope="module")
def images(tokenizer):
    side = tokenizer.info.image_size
    rough = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(rough, (side, side), mode="bilinear", antialias=True)


def told(tokenizer, count, dtype=torch.float32):
    """Text features for decoders that are told what the image shows."""
    generator = torch.Generator().manual_seed(1)
    one = torch.rand(1, *tokenizer.info.text, generator=generator) if tokenizer.info.text else None
    return None if one is None else one.expand(count, -1, -1).to(dtype)


def encode(tokenizer, images, tokens=None, seed=0):
    noise = torch.Generator().manual_seed(seed) if tokenizer.info.stochastic else None
    more = {}
    if "text" in inspect.signature(tokenizer.encode).parameters:
        more["text"] = told(tokenizer, len(images), images.dtype)
    return tokenizer.encode(images, tokens, noise, **more)


def decode(tokenizer, tokens, seed=0):
    noise = torch.Generator().manual_seed(seed) if tokenizer.info.draws_to_decode else None
    dtype = tokens.latents.dtype if tokens.latents is not None else torch.float32
    return tokenizer.decode(tokens, noise, told(tokenizer, len(tokens.lengths), dtype))


def content(tokens):
    return tokens.codes if tokens.codes is not None else tokens.latents


def pixels_or_skip(name):
    if name in NO_PIXELS:
        pytest.skip(f"no pixels: {NO_PIXELS[name]}")


def with_content(tokens, changed):
    kind = "codes" if tokens.codes is not None else "latents"
    return Tokens(lengths=tokens.lengths, bits=tokens.bits, **{kind: changed})


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_names_and_papers(method):
    assert method.id == method.build.__module__.rsplit(".", 1)[-1].replace("_", "-")
    assert method.paper.url.startswith("https://")
    assert "\n" not in method.idea
    assert len(method.idea) <= 120
    assert method.variants
    for size, variant in method.variants.items():
        assert size == size.lower().replace("_", "-") or size[0].isupper(), "kebab-case, or the release's own name"
        if variant.release is not None:
            assert variant.release.repo.count("/") == 1


def test_contract(name, tokenizer, images):
    assert isinstance(tokenizer, Tokenizer)
    info = tokenizer.info
    tokens = encode(tokenizer, images)
    assert tokens.lengths.dtype == torch.int64
    assert tokens.bits.dtype == torch.float64
    assert len(tokens.lengths) == len(tokens.bits) == len(content(tokens)) == 2
    longest = int(tokens.lengths.max())
    assert content(tokens).shape[1] in (info.max_tokens or longest, longest)
    if tokens.codes is not None:
        assert tokens.codes.dtype == torch.int64
        assert tokens.codes.dim() == (2 if len(info.codebook_sizes) == 1 else 3)
        assert (tokens.codes >= 0).all()
        assert (tokens.codes < torch.tensor(info.codebook_sizes)).all()
    else:
        assert info.codebook_sizes == ()
    if name not in OWN_BITS:
        assert tokens.bits.tolist() == pytest.approx([n * info.bits_per_token for n in tokens.lengths.tolist()])
    own = tokenizer.parameters() if isinstance(tokenizer, torch.nn.Module) else ()
    assert info.parameters == sum(parameter.numel() for parameter in own)
    if len(info.codebook_sizes) == 1 and name != "hita":
        assert info.bits_per_token == pytest.approx(math.log2(info.codebook_sizes[0]))
    pixels_or_skip(name)
    decoded = decode(tokenizer, tokens)
    assert decoded.shape == images.shape
    assert decoded.dtype == torch.float32
    assert decoded.isfinite().all()
    assert decoded.min() >= 0
    assert decoded.max() <= 1
    assert not decoded.requires_grad


def test_an_image_does_not_depend_on_its_batch(name, tokenizer, images):
    """Codes at batch 1 are those at batch 8, but for ties that a sum in another order decides."""
    eight = images.repeat(4, 1, 1, 1)
    together, alone = encode(tokenizer, eight), encode(tokenizer, eight[:1])
    if tokenizer.info.stochastic:  # the first image draws the same noise whoever follows
        assert int(together.lengths[0]) == int(alone.lengths[0])
    length = int(alone.lengths[0])
    one, first = content(alone)[0, :length], content(together)[0, :length]
    if together.codes is not None:
        assert (one == first).double().mean() >= 0.999
    else:
        torch.testing.assert_close(one, first, rtol=1e-3, atol=1e-4)
    if not tokenizer.info.stochastic:
        assert together.lengths.tolist() == [int(n) for n in encode(tokenizer, images).lengths] * 4
    pixels_or_skip(name)
    torch.testing.assert_close(decode(tokenizer, alone)[0], decode(tokenizer, together)[0], rtol=0, atol=2e-3)


def test_noise_is_the_generators(tokenizer, images):
    info = tokenizer.info
    if info.stochastic:
        assert torch.equal(content(encode(tokenizer, images)), content(encode(tokenizer, images)))
        with pytest.raises(MethodError, match=r"torch\.Generator"):
            tokenizer.encode(images)
    if info.draws_to_decode:
        tokens = encode(tokenizer, images)
        assert torch.equal(decode(tokenizer, tokens), decode(tokenizer, tokens))
        assert not torch.equal(decode(tokenizer, tokens), decode(tokenizer, tokens, seed=1))
        with pytest.raises(MethodError, match=r"torch\.Generator"):
            tokenizer.decode(tokens, None, told(tokenizer, 2))


def test_bad_images(name, tokenizer, images):
    side = tokenizer.info.image_size
    wanted = rf"\(B, 3, {side}, {side}\)"
    bad = [
        (torch.zeros(1, 3, side, side, dtype=torch.uint8), "floating point"),
        (torch.zeros(1, 3, side - 1, side), rf"{wanted}, got \(1, 3, {side - 1}, {side}\)"),
        (torch.zeros(1, 3, 2 * side, 2 * side), wanted),
        (torch.zeros(1, 1, side, side), wanted),
        (torch.zeros(3, side, side), rf"{wanted}, got \(3, {side}, {side}\)"),
        (torch.full((1, 3, side, side), 255.0), r"in \[0, 1\], got values from 255 to 255"),
        (-images, r"in \[0, 1\], got values from -"),
        (torch.full((1, 3, side, side), torch.nan), r"in \[0, 1\], got values from nan to nan"),
    ]
    for image, words in bad:
        with pytest.raises(MethodError, match=words) as caught:
            encode(tokenizer, image)
        assert "\n" not in str(caught.value)


def test_lengths_that_cannot_be_given(tokenizer, images):
    info = tokenizer.info
    too_many = (info.max_tokens or 10**9) + 1
    for tokens in (0, -1, *((too_many,) if info.max_tokens else (1,))):
        with pytest.raises(MethodError, match="tokens") as caught:
            encode(tokenizer, images, tokens)
        assert "\n" not in str(caught.value)
    if not info.variable_length:
        with pytest.raises(MethodError, match="tokens=1"):
            encode(tokenizer, images, 1)


def test_a_shorter_code_is_the_start_of_the_longer_one_and_decodes(name, tokenizer, images):
    info = tokenizer.info
    if not info.variable_length or info.max_tokens is None or name == "cat":
        pytest.skip("its code has one length, or lengths of its own, which its own test knows")
    whole, half = encode(tokenizer, images), encode(tokenizer, images, max(1, info.max_tokens // 2))
    assert (half.lengths <= info.max_tokens // 2).all()
    assert (half.bits <= whole.bits).all()
    pixels_or_skip(name)
    assert decode(tokenizer, half).shape == images.shape


def test_bad_tokens(name, tokenizer, images):
    good = encode(tokenizer, images)
    given = content(good)
    bad = [(given[0], "must be")]
    if good.codes is not None:
        size = tokenizer.info.codebook_sizes[-1]
        too_big, negative = given.clone(), given.clone()
        too_big.view(-1)[-1], negative.view(-1)[0] = size, -1
        bad += [(too_big, f"0 to {size - 1}"), (negative, "got -1"), (given.int(), "int64")]
        other = Tokens(lengths=good.lengths, bits=good.bits, latents=torch.zeros(2, 16, 12))
    else:
        bad += [(given[..., :-1], "latents must be"), (given.long(), "floating point")]
        other = Tokens(lengths=good.lengths, bits=good.bits, codes=torch.zeros(2, 16, dtype=torch.int64))
    if tokenizer.info.max_tokens is not None:
        longer = torch.cat([given] * (1 + tokenizer.info.max_tokens // given.shape[1]), dim=1)
        bad += [(longer, "must"), (given[:, :0], "must")]
    for changed, words in bad:
        with pytest.raises(MethodError, match=words) as caught:
            decode(tokenizer, with_content(good, changed))
        assert "\n" not in str(caught.value)
    with pytest.raises(MethodError, match=r"continuous latents|integer codes"):
        decode(tokenizer, other)


def test_text_that_is_missing_or_of_another_size(tokenizer, images):
    if tokenizer.info.text is None:
        pytest.skip("it is told nothing in words")
    tokens = encode(tokenizer, images)
    count, channels = tokenizer.info.text
    for text in (None, torch.zeros(2, count, channels + 1), torch.zeros(1, count, channels)):
        with pytest.raises(MethodError, match="text features"):
            tokenizer.decode(tokens, None, text)


def test_an_empty_batch(name, tokenizer, images):
    tokens = encode(tokenizer, images[:0])
    assert len(content(tokens)) == len(tokens.lengths) == len(tokens.bits) == 0
    pixels_or_skip(name)
    assert decode(tokenizer, tokens).shape == (0, *images.shape[1:])


def trained(name):
    """The method's small size with the repository's weights, where there is one."""
    sizes = [size for size, variant in METHODS[name].variants.items() if variant.weights is not None]
    return build.tokenizer(name, sizes[0], torch.device("cpu")) if sizes else None


def test_bfloat16_stays_near(name, tokenizer, images):
    """The same tokens decode to nearly the same images; a whole code is made and finite."""
    tokenizer = trained(name) or tokenizer  # what is drawn may be ill-conditioned where what is trained is not
    exact = encode(tokenizer, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = encode(tokenizer, images)
    assert content(tokens).isfinite().all()
    if tokens.latents is not None and name not in OWN_BITS:
        scale = exact.latents.norm()
        assert (tokens.latents - exact.latents).norm() <= 0.1 * scale
    pixels_or_skip(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = decode(tokenizer, exact)
    assert rough.dtype == torch.float32
    assert (rough - decode(tokenizer, exact)).square().mean().sqrt() <= 0.05


def test_runs_in_double(name, tokenizer, images):
    if not isinstance(tokenizer, torch.nn.Module):
        pytest.skip("it has no number type")
    tokenizer.double()
    try:
        tokens = encode(tokenizer, images.double())
        decoded = None if name in NO_PIXELS else decode(tokenizer, tokens)
    finally:
        tokenizer.float()
    if decoded is not None:
        assert decoded.shape == images.shape
        assert decoded.dtype == (torch.float64 if tokenizer.info.parameters else torch.float32)


@pytest.fixture
def checkpoint(name, tokenizer, tmp_path):
    """A file as the method's release would lay it out, and what writes another."""
    if not isinstance(tokenizer, torch.nn.Module) or not tokenizer.state_dict():
        pytest.skip("it has no state")
    layout = METHODS[name].layout

    def write(state):
        state = {key: value.clone() for key, value in state.items()}
        path = tmp_path / "released.pt"
        extra = {f"{prefix}of.training": torch.zeros(1) for prefix in layout.ignored}
        wrapper = layout.wrappers[0] if layout.wrappers else "state_dict"
        torch.save({wrapper: state | extra, "epoch": 3}, path)
        return path

    state = tokenizer.state_dict()
    if any(layout.module_key(key) != key for key in state):
        pytest.skip("its own keys read as other keys of the release: vectors and manifests test its renames")
    return state, write


def test_a_checkpoint_is_loaded_strictly(name, tokenizer, checkpoint):
    """Missing, extra and mis-shaped tensors, and a truncated file: one line each, and nothing is loaded."""
    state, write = checkpoint
    layout = METHODS[name].layout
    layouts.load(tokenizer, write(state), layout)
    before = {key: value.clone() for key, value in state.items()}
    some = next(key for key, value in state.items() if value.dim())
    wrong = [
        ({key: value for key, value in state.items() if key != some}, f"1 missing ({some})"),
        (state | {"something.else": torch.zeros(2)}, "1 unexpected (something.else)"),
        (state | {some: torch.zeros(*state[some].shape, 2)}, f"1 mis-shaped ({some}"),
    ]
    for changed, words in wrong:
        with pytest.raises(WeightsError, match=re.escape(words)) as caught:
            layouts.load(tokenizer, write(changed), layout)
        assert "\n" not in str(caught.value)
    path = write(state)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(WeightsError, match="cannot be read as tensors alone"):
        layouts.load(tokenizer, path, layout)
    assert all(torch.equal(value, before[key]) for key, value in tokenizer.state_dict().items())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_mini_weights_stay_under_two_megabytes(method):
    for variant in method.variants.values():
        if variant.weights is not None:
            assert method.build(**variant.config).info.parameters * 4 < 2_000_000
