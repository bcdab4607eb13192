"""T2T-ViT: what its vectors do not show."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from reference_impls.classifiers.t2t_vit import METHOD, sinusoid_table
from reference_impls.layers.tokens_to_token import TokenPerformer
from tokenmark.measures.cost import counted_macs


@pytest.mark.parametrize(
    ("variant", "printed", "parameters"),
    [
        ("t2t-vit-7", 1.1, 4.3),
        ("t2t-vit-10", 1.5, 5.9),
        ("t2t-vit-12", 1.8, 6.9),
        ("t2t-vit-14", 4.8, 21.5),
        ("t2t-vit-14-384", None, 21.7),
        ("t2t-vit-19", 8.5, 39.2),
        ("t2t-vit-24", None, 64.1),  # 13.8 is printed, 13.66 are counted
        ("t2t-vit-t-14", 6.1, 21.5),
        ("t2t-vit-t-19", 9.8, 39.2),
        ("t2t-vit-t-24", 15.0, 64.1),
    ],
)
def test_costs_what_the_release_prints(variant, printed, parameters):
    with torch.device("meta"):
        model = METHOD.build(**METHOD.variants[variant].config).eval()
        image = torch.zeros(1, *model.image_shape)
    if printed is not None:
        with sdpa_kernel(SDPBackend.MATH):
            assert counted_macs(model, image) / 1e9 == pytest.approx(printed, abs=0.05)
    assert sum(each.numel() for each in model.state_dict().values()) / 1e6 == pytest.approx(parameters, abs=0.06)


def test_many_random_features_are_softmax_attention():
    torch.manual_seed(0)
    module = TokenPerformer(4, 4).double()
    module.w = torch.randn(200_000, 4, dtype=torch.float64)
    q, k, v = (0.5 * torch.randn(1, 6, 4, dtype=torch.float64) for _ in range(3))
    exact = (q @ k.transpose(1, 2)).softmax(dim=2) @ v
    torch.testing.assert_close(module._attention(q, k, v), exact, rtol=0.0, atol=0.02)


def test_positions_are_sines_and_cosines():
    table = sinusoid_table(5, 6)
    assert table.dtype == torch.float32
    for place, column in ((0, 0), (0, 1), (3, 4), (4, 5)):
        angle = place / 10000 ** (2 * (column // 2) / 6)
        assert table[place, column].item() == pytest.approx((np.sin, np.cos)[column % 2](angle))


def test_random_features_and_positions_are_not_trained():
    model = METHOD.build(img_size=32, embed_dim=8, depth=1, num_heads=2, token_dim=6, num_classes=3)
    fixed = set(model.state_dict()) - {name for name, _ in model.named_parameters()}
    assert fixed == {"pos_embed", "tokens_to_token.attention1.w", "tokens_to_token.attention2.w"}
