"""Rate and codebook statistics against counts by hand and scipy's entropy."""

from collections import Counter

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmark.contracts import Tokens
from tokenmark.errors import MethodError
from tokenmark.measures.codes import Codebook, Rate


def tokens(codes, lengths=None, bits=None):
    codes = torch.as_tensor(codes)
    lengths = torch.full((len(codes),), codes.shape[1]) if lengths is None else torch.as_tensor(lengths)
    return Tokens(lengths=lengths, bits=lengths.double() * 8 if bits is None else torch.as_tensor(bits), codes=codes)


def numbers(measure):
    return {value.name: value.value for value in measure.compute()}


@pytest.mark.parametrize("size", [1, 2, 8, 256])
def test_uniform_codes(size):
    book = Codebook((size,))
    book.update(tokens(torch.arange(size).repeat(3, 1)))
    assert numbers(book) == pytest.approx(
        {"codebook_use": 1.0, "codebook_entropy": np.log2(size), "codebook_perplexity": size}
    )


def test_one_code_alone():
    book = Codebook((16,))
    book.update(tokens(torch.full((4, 9), 7)))
    found = numbers(book)
    assert found == {"codebook_use": 1 / 16, "codebook_entropy": 0.0, "codebook_perplexity": 1.0}
    assert str(found["codebook_entropy"]) == "0.0"  # not -0.0


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 30), st.data())
def test_any_codes_of_any_lengths(batch, longest, size, data):
    codes = data.draw(
        st.lists(st.lists(st.integers(0, size - 1), min_size=longest, max_size=longest), min_size=batch, max_size=batch)
    )
    lengths = data.draw(st.lists(st.integers(1, longest), min_size=batch, max_size=batch))
    book = Codebook((size,))
    split = data.draw(st.integers(0, batch))
    for part in (slice(0, split), slice(split, batch)):
        if codes[part]:
            book.update(tokens(codes[part], lengths[part]))
    counts = Counter(code for row, length in zip(codes, lengths, strict=True) for code in row[:length])
    entropy = scipy.stats.entropy(list(counts.values()), base=2)
    expected = {"codebook_use": len(counts) / size, "codebook_entropy": entropy, "codebook_perplexity": 2**entropy}
    assert numbers(book) == pytest.approx(expected, abs=1e-12)
    assert {value.n for value in book.compute()} == {batch}


@pytest.mark.parametrize(("sizes", "words"), [((), "integer codes"), ((1 << 36,), "68,719,476,736 entries")])
def test_refuses_what_cannot_be_counted(sizes, words):
    with pytest.raises(MethodError, match=words):
        Codebook(sizes)


def test_several_codebooks_are_each_counted_and_averaged():
    book = Codebook((4, 2))
    book.update(tokens([[[0, 1], [1, 1]], [[2, 1], [3, 1]]]))
    entropies = (2.0, 0.0)
    assert numbers(book) == pytest.approx(
        {"codebook_use": (1 + 0.5) / 2, "codebook_entropy": np.mean(entropies), "codebook_perplexity": 2.0}
    )


@pytest.mark.parametrize(("sizes", "codes"), [((4,), [[0, 4]]), ((4, 4), [[[0, 0], [4, 0]]]), ((4,), [[0, -1]])])
def test_codes_beyond_the_codebook_are_not_lost(sizes, codes):
    with pytest.raises(MethodError, match="beyond its codebook"):
        Codebook(sizes).update(tokens(codes))


def test_rate():
    rate = Rate(pixels=64)
    rate.update(tokens([[0, 0, 0, 0]] * 2, lengths=[4, 2], bits=torch.tensor([32.0, 16.0], dtype=torch.float64)))
    rate.update(tokens([[0, 0, 0, 0]], lengths=[3], bits=torch.tensor([24.0], dtype=torch.float64)))
    bits, count = rate.compute()
    assert (bits.name, bits.n, bits.value) == ("bits_per_pixel", 3, pytest.approx(24 / 64))
    assert bits.se == pytest.approx(np.std([0.5, 0.25, 0.375], ddof=1) / np.sqrt(3))
    assert (count.name, count.n, count.value) == ("tokens_per_image", 3, 3.0)


def test_a_single_image_has_no_error():
    rate = Rate(pixels=64)
    rate.update(tokens([[0]]))
    assert [value.se for value in rate.compute()] == [None, None]


@pytest.mark.parametrize("make", [lambda: Rate(64), lambda: Codebook((8,))])
def test_a_measure_that_was_stopped_goes_on(make):
    whole, first, second = make(), make(), make()
    parts = [tokens(torch.randint(0, 8, (3, 5), generator=torch.Generator().manual_seed(seed))) for seed in range(4)]
    for part in parts:
        whole.update(part)
    for part in parts[:2]:
        first.update(part)
    state = {name: array.copy() for name, array in first.state().items()}
    second.load(state)
    for part in parts[2:]:
        second.update(part)
    assert second.compute() == whole.compute()
