"""EViT as Haurum et al. run it: its counts and cost, and what a stage does that drops next to nothing."""

import pytest
import torch

from reference_impls.layers.stages import Stages
from reference_impls.reducers import evit_haurum
from tests.reference_impls import vits


@pytest.mark.parametrize(
    ("rate", "gmacs"), [(0.9, (1.080, 3.977)), (0.7, (0.812, 2.997)), (0.5, (0.625, 2.294)), (0.25, (0.475, 1.714))]
)
def test_cost_of_deit_tiny_and_small(rate, gmacs):
    for width, gmac in zip((192, 384), gmacs, strict=True):
        with torch.device("meta"):
            model = vits.VisionTransformer(embed_dim=width, num_heads=width // 64)
            reduced = evit_haurum.METHOD.build(model, Stages(keep_rate=rate))
        assert reduced.cost.macs(reduced.schedule) / 1e9 == pytest.approx(gmac, abs=5e-4)


def test_a_stage_that_keeps_all_makes_no_token_and_one_that_drops_one_does():
    model = vits.served("vit")
    reduced = evit_haurum.METHOD.build(model, Stages(keep_rate=(1.0, 0.5, 0.5), blocks=(0, 1, 2)))
    assert [block.mlp for block in reduced.schedule] == [17, 10, 10, 10]
    first, second = reduced.trace(vits.images_for(model)).sources[1:3]
    # The fused token is one of nine candidates for eight places: one patch or it goes into the next.
    assert not torch.equal(first, second)
    assert (second == 9).any(dim=1).all()
