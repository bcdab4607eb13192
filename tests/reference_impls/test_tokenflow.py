"""TokenFlow: what its vectors do not show."""

import pytest
import torch

from reference_impls.tokenizers.tokenflow import METHOD, release_arguments
from tests.reference_impls.small_tokenizers import SMALL
from tokenmark.contracts import MethodError


def built(**changes):
    torch.manual_seed(0)
    return METHOD.build(**{**SMALL["tokenflow"], **changes}).eval()


@pytest.mark.parametrize(("variant", "side", "tokens"), [("clipb-32k-enhanced", 256, 817), ("siglip-32k", 384, 2227)])
def test_official_sizes(variant, side, tokens):
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants[variant].config)
    assert (module.info.image_size, module.info.max_tokens) == (side, tokens)
    assert module.info.bits_per_token == 15.0


def test_without_interpolation_clip_is_shown_224_pixels():
    arguments = release_arguments({"teacher": "clipb_224", "codebook_size": 32768})
    with torch.device("meta"):
        module = METHOD.build(**arguments)
    assert (module.image_size, module.max_tokens) == (224, 561)


def test_one_index_minimises_the_sum_of_both_distances():
    quantize = built().quantize
    torch.manual_seed(1)
    rows = torch.randn(1, 50, sum(quantize.widths))
    sums = torch.zeros(50, quantize.codebook_sizes[0])
    tables = (quantize.embedding_vqkd.weight, quantize.embedding_vqgan.weight)
    for part, table in zip(rows[0].split(quantize.widths, dim=-1), tables, strict=True):
        cosines = torch.nn.functional.cosine_similarity(part[:, None], table[None], dim=-1)
        sums += 2.0 - 2.0 * cosines
    assert torch.equal(quantize.choose(rows, 0)[0], sums.argmin(1))


def test_the_coarsest_scales_alone_decode_but_only_whole_ones():
    module = built()
    codes = module.encode(torch.rand(2, 3, 32, 32)).codes
    coarse = module.decode_codes(codes[:, :1])
    assert coarse.shape == (2, 3, 32, 32)
    assert not torch.equal(coarse, module.decode_codes(codes))
    with pytest.raises(MethodError, match="3 codes are not a whole number of the scales"):
        module.decode_codes(codes[:, :3])


def test_images_that_siglip_patches_do_not_divide():
    tower = {**SMALL["tokenflow"]["tower"], "patch_size": 7, "image_size": 32, "mlp": 40}
    module = built(teacher="siglip", tower=tower, scales=[1, 4])
    images = torch.rand(2, 3, 32, 32)
    assert module.pixel_size == 16
    assert module.decode(module.encode(images)).shape == images.shape


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher": "vitamin"}, "'clip' or 'siglip', got 'vitamin'"),
        ({"scales": [1, 3]}, "the tower's grid, 8, got 3"),
        ({"image_size": 33}, "4 \\* 8 for both branches, got 33"),
        ({"scales": [9, 8]}, "the last is the largest"),
    ],
)
def test_sizes_that_do_not_fit(changes, words):
    with pytest.raises(MethodError, match=words):
        built(**changes)
