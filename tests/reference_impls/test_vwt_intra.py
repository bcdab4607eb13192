"""Visual Word Tokenizer within an image: which patches stay."""

import numpy as np
import pytest
import torch

from reference_impls.layers.pixel_patches import pixel_patches
from reference_impls.reducers.vwt_intra import METHOD, VwtIntraSettings
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError


def test_half_of_196_patches_is_98():
    with torch.device("meta"):
        model = vits.VisionTransformer(embed_dim=16, num_heads=2)
    assert {(block.attention, block.mlp) for block in METHOD.build(model, VwtIntraSettings()).schedule} == {(99, 99)}


@pytest.mark.parametrize("backbone", ["oblong", "dinov2-registers", "siglip", "beit", "open-clip"])
def test_keeps_the_most_varied_patches_in_the_order_of_the_image(backbone):
    model = vits.served(backbone)
    images = vits.images_for(model)
    images = images * torch.linspace(0.5, 2, images.shape[3])  # patches to the right vary more
    reduced = METHOD.build(model, VwtIntraSettings(keep=0.3))
    (rows, columns), prefix = reduced.backbone.grid, reduced.backbone.prefix
    side = images.shape[2] // rows
    kept = int(rows * columns * 0.3)
    with torch.no_grad():
        sources = reduced.trace(images).sources[0]
    for image, source in zip(images.numpy(), sources, strict=True):
        spread = [
            np.var(image[:, side * row : side * (row + 1), side * column : side * (column + 1)], ddof=1)
            for row in range(rows)
            for column in range(columns)
        ]
        expected = sorted(np.argsort(spread)[::-1][:kept])
        assert [i for i, place in enumerate(source[prefix:].tolist()) if place >= 0] == expected
        assert source[source >= 0].tolist() == list(range(prefix + kept))


def test_flat_patches_tie_and_the_earliest_stay():
    model = vits.served("vit")
    reduced = METHOD.build(model, VwtIntraSettings(keep=0.25))
    trace = reduced.trace(torch.zeros(1, 3, 64, 64, dtype=torch.float64))
    assert trace.sources[0][0].tolist() == [0, 1, 2, 3, 4] + [-1] * 12


def test_patches_are_by_channel_row_and_column():
    images = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    patches = pixel_patches(images, (2, 3))
    assert patches.shape == (2, 6, 12)
    assert torch.equal(patches[1, 4], images[1, :, 2:4, 2:4].flatten())


@pytest.mark.parametrize("keep", [0.0, -1.0, 1.5, 0.05, float("nan")])
def test_refuses_an_impossible_share(keep):
    with pytest.raises(BudgetError, match="must lie above 0") as caught:
        METHOD.build(vits.served("vit"), VwtIntraSettings(keep=keep))
    assert "\n" not in str(caught.value)
