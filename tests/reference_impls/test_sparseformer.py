"""SparseFormer: where tokens look, by plain loops, and what the bootstrapping hands over."""

import math

import numpy as np
import pytest
import timm
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from reference_impls.classifiers.sparseformer import METHOD, SparseFormer, alignment_loss, inherit
from reference_impls.layers.focusing import BoxCode, SampleAndMix, first_boxes, moved, points_in
from tokenmark.contracts import MethodError
from tokenmark.measures.cost import counted_macs

SMALL = {"img_size": 16, "tokens": 5, "focus_dim": 8, "embed_dim": 16, "depth": 2, "num_classes": 3}


def small(**changes):
    torch.manual_seed(0)
    return SparseFormer(**SMALL | changes).double().eval()


@pytest.mark.parametrize(("tokens", "grid", "whole"), [(48, 36, 12), (63, 49, 14), (1, 1, 0)])
def test_first_boxes_tile_the_image_or_cover_it(tokens, grid, whole):
    boxes = first_boxes(tokens)
    torch.testing.assert_close(boxes[:grid, 2:] - boxes[:grid, :2], torch.full((grid, 2), 0.5))
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    assert boxes[grid:].tolist() == [[0.0, 0.0, 1.0, 1.0]] * whole
    assert len({tuple(box) for box in boxes[:grid].tolist()}) == grid


def test_points_spread_by_a_third_of_the_box():
    torch.manual_seed(0)
    boxes = torch.tensor([[[0.1, 0.2, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0]]]).double()
    points = points_in(boxes, torch.randn(1, 2, 16, 2).double() * 7 + 3)
    torch.testing.assert_close(points.mean(dim=2)[0, 0], torch.tensor([0.3, 0.6]).double())
    torch.testing.assert_close(points.std(dim=2)[0, 0], torch.tensor([0.4, 0.8]).double() / 3)


def test_boxes_move_by_their_size_and_grow_by_exponents():
    box = torch.tensor([[[0.2, 0.2, 0.6, 0.4]]])
    step = torch.tensor([[[0.5, -1.0, math.log(2), 0.0]]])
    torch.testing.assert_close(moved(box, step), torch.tensor([[[0.2, 0.0, 1.0, 0.2]]]))
    assert torch.equal(moved(box, torch.zeros(1, 1, 4)).round(decimals=6), box)


def look(features, x, y):
    """Bilinear, pixels' centres at halves, the border repeated."""
    height, width = features.shape[1:]
    row, column = (min(max(at * side - 0.5, 0), side - 1) for at, side in ((y, height), (x, width)))
    found = 0.0
    for i, part in ((math.floor(row), 1 - row % 1), (min(math.floor(row) + 1, height - 1), row % 1)):
        for j, share in ((math.floor(column), 1 - column % 1), (min(math.floor(column) + 1, width - 1), column % 1)):
            found = found + part * share * features[:, i, j]
    return found


def test_sampling_and_mixing_equal_plain_loops():
    torch.manual_seed(0)
    module = SampleAndMix(8).double()
    tokens, features = torch.randn(1, 2, 8).double(), torch.randn(1, 64, 3, 5).double()
    boxes = torch.tensor([[[-0.5, 0.1, 0.4, 1.8], [0.2, 0.3, 0.9, 0.6]]]).double()
    with torch.no_grad():
        points = points_in(boxes, module.offsets(module.norm_offsets(tokens)).unflatten(2, (16, 2)))
        made = module.weights(module.narrow(module.norm_weights(tokens)))
        for token in range(2):
            found = torch.stack([look(features[0], *point) for point in points[0, token].tolist()])
            channels, mixing = made[0, token, : 64 * 64].view(64, 64), made[0, token, 64 * 64 :].view(32, 16)
            mixed = torch.nn.functional.gelu(mixing @ (found @ channels)).flatten()
            expected = tokens[0, token] + module.out(mixed)
            torch.testing.assert_close(module(tokens, boxes, features)[0, token], expected)


def test_a_box_is_told_apart_at_every_frequency():
    code = BoxCode(32)
    np.testing.assert_allclose(code.frequencies, 128 ** (np.arange(4) / 3), rtol=1e-6)
    assert code(torch.rand(2, 3, 4)).shape == (2, 3, 32)


def test_every_look_sharpens_by_the_same_weights():
    model = small()
    features = model.stem(torch.randn(2, 3, 16, 16).double())
    with torch.no_grad():
        runs = model.focused(features)
        tokens, boxes = model.token.expand(2, 5, -1), model.boxes.expand(2, -1, -1)
        for stage, (expected, moved_boxes) in enumerate(runs):
            tokens, boxes = model.focus(tokens + model.stages[stage], boxes, features)
            torch.testing.assert_close(tokens, expected)
            torch.testing.assert_close(boxes, moved_boxes)
    assert len(runs) == 4
    assert not torch.equal(runs[0][1], runs[3][1])


def test_the_order_of_tokens_does_not_matter():
    """All start alike: what tells them apart is their box."""
    model, images = small(), torch.randn(1, 3, 16, 16).double()
    with torch.no_grad():
        before = model(images)
        model.boxes.copy_(model.boxes.flip(0))
        torch.testing.assert_close(model(images), before)


def test_clip_weights_see_the_pixels_that_they_know():
    plain, clip = small(), small(pixels="clip")
    clip.load_state_dict(plain.state_dict())
    pixels = torch.rand(1, 3, 16, 16).double()
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).double()[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).double()[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(clip((pixels - 0.5) / 0.5), plain((pixels - mean) / std), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("variant", "tokens", "width", "blocks"),
    [
        ("btsp_augreg_base", 48, 768, 8),
        ("btsp_augreg_large", 48, 1024, 16),
        ("btsp_openai_clip_base", 48, 768, 8),
        ("btsp_openai_clip_large", 63, 1024, 16),
    ],
)
def test_costs_what_its_pieces_cost(variant, tokens, width, blocks):
    config = METHOD.variants[variant].config
    with torch.device("meta"):
        model = SparseFormer(**config).eval()
        image = torch.zeros(1, 3, 224, 224)
    focus = width // 2

    def looking(dim):
        generated = dim * 128 + 128 * (64 * 64 + 16 * 32)
        return tokens * (dim * 32 + generated + 16 * 64 * 64 + 32 * 16 * 64 + 2048 * dim + dim * dim)

    def block(dim, count):
        return 12 * count * dim**2 + 2 * count**2 * dim

    expected = 112 * 112 * 64 * 3 * 49
    expected += 4 * (looking(focus) + block(focus, tokens) + tokens * (focus**2 + 4 * focus))
    expected += tokens * focus * width + looking(width) + blocks * block(width, tokens + 1)
    expected += width * model.head.out_features
    with sdpa_kernel(SDPBackend.MATH):
        assert counted_macs(model, image) == expected


def test_inherits_a_vits_later_blocks_and_trains_the_rest():
    teacher = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, embed_dim=16, depth=6, num_heads=1, num_classes=3
    ).double()
    model = small(depth=4)
    inherit(model, teacher)
    for mine, its in zip(model.blocks, teacher.blocks[2:], strict=True):
        assert all(torch.equal(mine.state_dict()[key], value) for key, value in its.state_dict().items())
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    assert {name.split(".")[0] for name in frozen} == {"blocks", "norm", "head"}
    assert {name.split(".")[1] for name in frozen if name.startswith("blocks")} == {"2", "3"}
    with pytest.raises(MethodError, match="do not fit"):
        inherit(small(embed_dim=24), teacher)


def test_the_alignment_asks_for_direction_alone():
    token = torch.randn(3, 4)
    assert alignment_loss(2 * token, token).item() == pytest.approx(0, abs=1e-6)
    assert alignment_loss(-token, token).item() == pytest.approx(2, abs=1e-6)
