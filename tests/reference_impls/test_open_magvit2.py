"""Open-MAGVIT2: sizes of its releases, and decoding that sees the whole image."""

import pytest
import torch

from reference_impls.tokenizers.open_magvit2 import METHOD
from tests.reference_impls.small_tokenizers import SMALL

RELEASED = {
    "imagenet-128-l": (128, 18, 112_021_653),
    "imagenet-256-l": (256, 18, 115_127_829),
    "pretrain-256-16384": (256, 14, 115_094_033),
    "pretrain-256-262144": (256, 18, 115_127_829),
}


@pytest.mark.parametrize("variant", RELEASED)
def test_released_sizes(variant):
    side, bits, parameters = RELEASED[variant]
    with torch.device("meta"):
        info = METHOD.build(**METHOD.variants[variant].config).info
    assert (info.image_size, info.max_tokens, info.bits_per_token) == (side, 256, bits)
    assert info.parameters == parameters


def test_every_token_moves_the_norms_of_all_pixels():
    torch.manual_seed(0)
    module = METHOD.build(**SMALL["open-magvit2"]).eval()
    codes = torch.arange(64)[None] * 7
    other = codes.clone()
    other[0, -1] ^= 1
    with torch.no_grad():
        apart = (module.decode_codes(codes) - module.decode_codes(other)).abs().amax(1)
    assert (apart > 0).float().mean() > 0.9
