"""LookupViT: its cost by formula, and its two ways of attention by plain loops."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from reference_impls.classifiers.lookupvit import METHOD, LookupBlock, LookupVit, block_macs
from tokenmark.contracts import MethodError
from tokenmark.measures.cost import counted_macs

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 3, "num_classes": 3}


@pytest.mark.parametrize(
    ("compressed", "ratios"),
    [
        (9, (2.96, 2.65, 2.19, 1.62, 1.07)),
        (25, (2.27, 2.08, 1.78, 1.39, 0.96)),
        (49, (1.67, 1.57, 1.39, 1.14, 0.84)),
        (100, (1.07, 1.03, 0.95, 0.82, 0.65)),
    ],
)
def test_saves_over_vit_b_what_its_formula_says(compressed, ratios):
    tokens, width = 196, 768
    plain = 12 * tokens * width**2 + 2 * tokens**2 * width
    for lookup_ratio, expected in zip((0.25, 0.5, 1, 2, 4), ratios, strict=True):
        assert round(plain / block_macs(tokens, compressed, width, lookup_ratio), 2) == expected


@pytest.mark.parametrize("pool", ["both", "compressed"])
def test_the_formula_agrees_with_the_counter(pool):
    model = LookupVit(**SMALL | {"embed_dim": 48}, side=3, lookup_ratio=0.5, pool=pool).eval()
    with sdpa_kernel(SDPBackend.MATH):
        counted = counted_macs(model, torch.zeros(1, 3, 32, 32))
    blocks = 2 * block_macs(16, 9, 48, 0.5)
    if pool == "compressed":  # the last block does not go back: one map of each kind, one product, the lookup MLP
        blocks -= 9 * 48**2 + 16 * 48**2 + 9 * 16 * 48 + 2 * 16 * 48 * 24
    assert counted == 16 * 48 * 3 * 64 + blocks + 3 * 48


@pytest.mark.parametrize("transposed", ["logits", "probabilities"])
def test_lookup_tokens_read_by_the_transposed_attention(transposed):
    torch.manual_seed(0)
    block = LookupBlock(6, 2, 0.5, transposed).double()
    compressed, lookup = torch.randn(1, 2, 6).double(), torch.randn(1, 5, 6).double()
    with torch.no_grad():
        after, read = block(compressed, lookup)
        queries, keys = block.query(block.norm_query(compressed)), block.key_value(block.norm_lookup(lookup))[..., :6]
        values = block.value_back(block.norm_back(after))
        heads = []
        for head in range(2):
            part = slice(3 * head, 3 * head + 3)
            logits = queries[0, :, part] @ keys[0, :, part].T / 3**0.5
            weights = logits.T.softmax(dim=1) if transposed == "logits" else logits.softmax(dim=1).T
            heads.append(weights @ values[0, :, part])
        expected = lookup + block.proj_back(torch.cat(heads, dim=1))
        torch.testing.assert_close(read, expected + block.mlp(block.norm_mlp(expected)))


def test_one_set_of_weights_serves_every_number_of_compressed_tokens():
    torch.manual_seed(0)
    model = LookupVit(**SMALL, side=2).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert [model.compress(torch.randn(2, 16, 12), side).shape[1] for side in (1, 3, 4)] == [1, 9, 16]
        assert torch.equal(model(images, 2), model(images))
        assert not torch.equal(model(images, 4), model(images))
    for side in (0, 5):
        with pytest.raises(MethodError, match="1 to 4"):
            model(images, side)


def test_a_grid_as_fine_as_the_patches_is_the_patches():
    model = LookupVit(**SMALL, side=2)
    lookup = torch.randn(2, 16, 12)
    torch.testing.assert_close(model.compress(lookup, 4), lookup)


def test_variants_say_what_they_chose():
    for name, variant in METHOD.variants.items():
        config = variant.config
        assert name == f"base-m{config['side'] ** 2}-r{config['lookup_ratio']:g}-{config['transposed']}"
