"""Semantic tokens: what they are pooled from and look at, on the release's maps and on larger ones."""

import pytest
import torch
from torch.nn.functional import unfold

from reference_impls.classifiers import stvit_r
from reference_impls.layers.semantic_tokens import GroupBlock, LookBlock, PoolBlock, neighbourhoods
from tokenmark.contracts import MethodError

SMALL = {"embed_dim": 8, "depths": (1, 2, 6, 1), "num_heads": (1, 1, 2, 2), "num_classes": 5}


def test_neighbourhoods_of_the_release():
    """On its 14 x 14 maps they are 10 x 10 patches at a stride of 4."""
    image = torch.randn(2, 14, 14, 3)
    found = unfold(image.permute(0, 3, 1, 2), 10, stride=4).unflatten(1, (3, 100)).permute(0, 3, 2, 1)
    assert torch.equal(neighbourhoods(image), found)


def test_neighbourhoods_hold_their_windows_on_larger_maps():
    rows, columns = torch.meshgrid(torch.arange(28), torch.arange(21), indexing="ij")
    found = neighbourhoods(torch.stack((rows, columns), dim=-1)[None])[0]
    assert found.shape == (12, 100, 2)
    for window, places in enumerate(found.tolist()):
        down, across = 7 * (window // 3), 7 * (window % 3)
        own = {(down + i, across + j) for i in range(7) for j in range(7)}
        assert own < {tuple(place) for place in places}


def test_semantic_tokens_are_in_their_grid():
    """Those of window (0, 1) of a 7 x 14 map stand in columns 3 to 5, and are moved by that window's pixels."""
    torch.manual_seed(0)
    block = PoolBlock(4, 1, (7, 14), use_conv_pos=False, shortcut=True).double()
    x = torch.randn(1, 98, 4, dtype=torch.float64)
    changed = x.unflatten(1, (7, 14)).clone()
    changed[:, 6, 13] += 100
    with torch.no_grad():
        moved = (block(x, x) - block(changed.flatten(1, 2), changed.flatten(1, 2))).abs().amax(dim=2)
    assert moved.shape == (1, 18)
    assert moved[0].argmax() == 17


@pytest.mark.parametrize(
    "block",
    [
        lambda: LookBlock(4, 2, (3, 3)),
        lambda: GroupBlock(4, 2, (3, 3), relative_pos=True),
        lambda: PoolBlock(2, 1, (7, 7), use_conv_pos=True, shortcut=True),
    ],
)
def test_gradients(block):
    torch.manual_seed(0)
    module = block().double()
    tokens = 49 if isinstance(module, PoolBlock) else 9
    x = torch.randn(1, tokens, module.norm1.weight.numel(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: module(x, x)[:, :3], (x,))


def test_takes_larger_images_that_are_not_square():
    model = stvit_r.METHOD.build(**SMALL, img_size=(224, 448), relative_pos=True).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 224, 448)).shape == (1, 5)


@pytest.mark.parametrize(
    ("wrong", "reason"), [({"img_size": (224, 256)}, "multiples of 224"), ({"depths": (1, 1, 5, 1)}, "cycles of 6")]
)
def test_refuses_what_windows_or_cycles_do_not_fill(wrong, reason):
    with pytest.raises(MethodError, match=reason) as caught:
        stvit_r.METHOD.build(**SMALL | wrong)
    assert "\n" not in str(caught.value)
