"""When two values can both be true."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tokenmark import make
from tokenmark import agreement
from tokenmark.records import Value


def value(name, number, n=500, **more):
    return Value(name=name, value=number, n=n, **more)


KINDS = {
    "timing": [
        "latency_p50_ms",
        "encode_latency_p99_ms",
        "images_per_second",
        "both_images_per_second",
        "speedup_best",
    ],
    "follows": ["top1_mcnemar_p", "gfid_infinite", "codebook_perplexity"],
    "measured": ["rfid", "psnr", "top1", "top1_difference", "codebook_use", "bits_per_pixel", "macs", "latent_size"],
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in KINDS.items() for name in names])
def test_kinds(kind, name):
    assert agreement.kind_of(name) == kind


CASES = [
    (value("psnr", 30.0, se=0.1), value("psnr", 30.27, se=0.1), True, False),
    (value("psnr", 30.0, se=0.1), value("psnr", 30.29, se=0.1), True, True),
    (value("psnr", 30.0, se=0.1), value("psnr", 30.29, se=0.1), False, True),
    (value("macs", 1e9, n=1), value("macs", 1e9 + 500, n=1), False, False),
    (value("macs", 1e9, n=1), value("macs", 1e9 + 2000, n=1), False, True),
    (value("macs", 1e9, n=64), value("macs", 1e9 * 1.005, n=64), False, False),
    (value("macs", 1e9, n=64), value("macs", 1e9 * 1.02, n=64), False, True),
    (value("codebook_use", 0.50), value("codebook_use", 0.504), True, False),
    (value("codebook_use", 0.50), value("codebook_use", 0.51), True, True),
    (value("gfid_infinite", 1.0), value("gfid_infinite", 2.0), True, False),
    (value("images_per_second", 100.0), value("images_per_second", 390.0), True, False),
    (value("images_per_second", 100.0), value("images_per_second", 410.0), True, True),
    (value("images_per_second", 100.0), value("images_per_second", 41000.0), False, False),
    (value("best_batch", 1.0), value("best_batch", 512.0), True, False),
    (value("joules_per_image", 0.0), value("joules_per_image", 1.0), True, True),
]


@pytest.mark.parametrize(("one", "other", "same", "contradicts"), CASES)
def test_contradictions(one, other, same, contradicts):
    for pair in ((one, other), (other, one)):
        problem = agreement.contradiction(*pair, same_device=same)
        assert (problem is not None) == contradicts
        if problem:
            assert one.name in problem


@given(st.sampled_from([*make.RECONSTRUCTED, *make.CLASSIFIED, *make.GENERATED]), st.booleans())
def test_a_value_agrees_with_itself(one, same):
    assert agreement.contradiction(one, one, same_device=same) is None
