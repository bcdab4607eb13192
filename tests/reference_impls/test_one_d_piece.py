"""One-D-Piece: any prefix decodes, and training drops the tail."""

import pytest
import torch

from reference_impls.tokenizers.one_d_piece import METHOD
from tokenmark.contracts import MethodError


@pytest.mark.parametrize(("variant", "parameters"), [("s", 83_871_247), ("b", 205_256_463), ("l", 641_742_863)])
def test_released_sizes(variant, parameters):
    with torch.device("meta"):
        module = METHOD.build(**METHOD.variants[f"{variant}256"].config)
    assert module.info.parameters == parameters


@pytest.fixture(scope="module")
def mini():
    torch.manual_seed(0)
    return METHOD.build(**METHOD.variants["mini-16"].config).eval()


def test_a_short_code_is_the_start_of_the_long_one(mini):
    images = torch.rand(2, 3, 32, 32)
    whole = mini.encode(images)
    for count in (1, 7, 16):
        short = mini.encode(images, tokens=count)
        assert torch.equal(short.codes, whole.codes[:, :count])
        assert short.lengths.tolist() == [count] * 2
        assert short.bits.tolist() == [count * 8.0] * 2
        assert mini.decode(short).shape == (2, 3, 32, 32)
    for count in (0, 17, -1):
        with pytest.raises(MethodError, match="1 to 16"):
            mini.encode(images, tokens=count)


def test_tail_drop_is_uniform_from_one_to_all(mini):
    generator = torch.Generator().manual_seed(0)
    drawn = [mini.draw_length(generator) for _ in range(1600)]
    assert set(drawn) == set(range(1, 17))
    assert all(50 < drawn.count(length) < 160 for length in range(1, 17))


def test_dropped_tokens_do_not_reach_the_decoder(mini):
    images = torch.rand(1, 3, 32, 32)
    step = mini.forward_train_dropped(images, torch.Generator().manual_seed(1))
    kept = mini.draw_length(torch.Generator().manual_seed(1))
    decoded = mini.decode(mini.encode(images, tokens=kept))
    torch.testing.assert_close(step.reconstruction.clamp(0, 1), decoded, atol=1e-3, rtol=0)
