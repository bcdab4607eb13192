"""What the parity vectors do not show of SEED-2."""

import pytest
import torch

from reference_impls.layers.q_former import QFormer
from reference_impls.tokenizers.seed import METHOD
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError, Tokens


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return METHOD.build(**SMALL["seed"]).eval()


def test_official_size():
    with torch.device("meta"):
        info = METHOD.build(**METHOD.variants["seed-2"].config).info
    # The checkpoint's 1,149,999,040 values but the 512 position ids.
    assert info.parameters == 1_149_998_528
    assert (info.image_size, info.max_tokens, info.bits_per_token) == (224, 32, 13.0)


def test_it_gives_embeddings_and_no_pixels(small):
    images = torch.rand(3, 3, 32, 32)
    tokens = small.encode(images)
    embedded = small.embed(tokens)
    assert embedded.shape == (3, 24)
    torch.testing.assert_close(small.embed(small.encode(images[:1])), embedded[:1])
    assert small.embed(small.encode(images[:0])).shape == (0, 24)
    with pytest.raises(MethodError, match="unCLIP decoder, which is not part of SEED"):
        small.decode(tokens)
    bad = Tokens(lengths=tokens.lengths, bits=tokens.bits, codes=tokens.codes + 256)
    for method in (small.embed, small.decode):
        with pytest.raises(MethodError, match="0 to 255"):
            method(bad)


def test_embeds_in_double_and_under_bfloat16(small):
    images = torch.rand(2, 3, 32, 32)
    plain = small.embed(small.encode(images))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = small.embed(small.encode(images))
    assert rough.dtype == torch.float32
    assert rough.isfinite().all()
    small.double()
    try:
        exact = small.embed(small.encode(images.double()))
    finally:
        small.float()
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact.float(), plain, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("count", "causal"), [(31, False), (32, True), (33, False)])
def test_queries_are_causal_only_if_they_are_thirty_two(count, causal):
    torch.manual_seed(0)
    network = QFormer(dim=24, layers=2, heads=2, mlp=32, positions=4, context=8).eval()
    queries, features = torch.randn(1, count, 24), torch.randn(1, 5, 8)
    changed = queries.clone()
    changed[:, -1] += torch.randn(24)
    before, after = network(queries, features), network(changed, features)
    assert torch.equal(before[:, :-1], after[:, :-1]) == causal
    assert not torch.allclose(before[:, -1], after[:, -1])


def test_a_width_that_twelve_heads_do_not_divide():
    with pytest.raises(MethodError, match="12 heads"):
        METHOD.build(**SMALL["seed"] | {"bert": SMALL["seed"]["bert"] | {"dim": 40}})
