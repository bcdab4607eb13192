"""EViT: published counts and costs, the fused token by plain loops, and what it refuses."""

import numpy as np
import pytest
import torch

from reference_impls.reducers import evit
from reference_impls.reducers.evit import EvitSettings
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError, UnsupportedBackboneError
from tokenmark.measures.cost import counted_macs


def built(model, **settings):
    """The reduced model."""
    return evit.METHOD.build(model, EvitSettings(**settings))


@pytest.mark.parametrize(
    ("rate", "tokens", "fused", "not_fused"),
    [
        (0.9, [179, 163, 148], 4.022, 3.988),
        (0.8, [159, 129, 105], 3.477, 3.444),
        (0.7, [140, 100, 72], 3.029, 2.997),
        (0.6, [120, 74, 46], 2.635, 2.608),
        (0.5, [100, 52, 28], 2.309, 2.282),
    ],
)
def test_counts_and_macs_of_deit_s(rate, tokens, fused, not_fused):
    with torch.device("meta"):
        reduced = built(vits.create_model("deit_small_patch16_224"), keep_rate=rate)
        without = built(vits.create_model("deit_small_patch16_224"), keep_rate=rate, fuse=False)
    assert [reduced.schedule[block].mlp for block in (3, 6, 9)] == tokens
    assert [round(each.cost.macs(each.schedule) / 1e9, 3) for each in (reduced, without)] == [fused, not_fused]


def test_the_fused_token_is_the_weighted_sum_of_the_dropped_ones():
    """By hand for one image, from the tokens after attention and what the class token looks at."""
    model = vits.served("deit-distilled")
    reduced, seen = built(model, keep_rate=0.5, blocks=(2,)), {}
    act = reduced.reduction.after_attention

    def spied(block, state, attended):
        seen.update({block: (state.x[0].numpy(), attended.all_rows()[0, :, 0].mean(0).numpy(), None)})
        state = act(block, state, attended)
        seen[block] = (*seen[block][:2], state.x[0].numpy())
        return state

    reduced.reduction.after_attention = spied
    with torch.no_grad():
        reduced(vits.images_for(model, 1))
    x, attention, given = seen[2]
    order = 2 + np.argsort(-attention[2:], kind="stable")
    fused = sum(attention[i] * x[i] for i in order[8:])
    np.testing.assert_allclose(given, np.stack([x[0], x[1], *x[order[:8]], fused]), rtol=1e-9)


def test_a_later_stage_may_keep_or_drop_the_fused_token():
    model = vits.served("vit")
    trace = built(model, keep_rate=0.5, blocks=(0, 2)).trace(vits.images_for(model, 5))
    assert [x.shape[1] for x in trace.tokens] == [10, 10, 7, 7]
    first, last = trace.sources[0], trace.sources[-1]
    assert ((first == 9).sum(dim=1) == 8).all()  # the eight dropped patches
    assert (last >= 0).all()  # dropped again they are in the next fused token


def test_one_patch_less_is_made_up_for_by_the_fused_token():
    model = vits.served("vit")
    reduced = built(model, counts=(15,), blocks=(1,))
    assert reduced.schedule == reduced.backbone.unreduced()
    assert not torch.allclose(reduced(vits.images_for(model)), model(vits.images_for(model)))


def test_without_the_fused_token_it_serves_models_that_look_at_places():
    model = vits.served("dinov3")
    assert built(model, fuse=False, blocks=(1,))(vits.images_for(model)).shape == (2, 5)
    with pytest.raises(UnsupportedBackboneError, match="no place"):
        built(model, blocks=(1,))


def test_the_counter_sees_the_fusing():
    model = vits.served("deit3")
    reduced = evit.METHOD.build(model, EvitSettings(blocks=(0, 1, 2, 3)), attention="eager")
    assert counted_macs(reduced, vits.images_for(model, 1)) == reduced.cost.macs(reduced.schedule) + reduced.extra_macs


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"keep_rate": 0.0}, "above 0"),
        ({"keep_rate": 1.1}, "not above 1"),
        ({"keep_rate": float("nan")}, "above 0"),
        ({"keep_rate": (0.5, 0.5)}, "2 rates or 1 counts for 1 blocks"),
        ({"counts": (3, 3)}, "1 rates or 2 counts for 1 blocks"),
        ({"counts": (17,)}, "cannot keep 17 of the 16 patches"),
        ({"counts": (0,)}, "cannot keep 0 of the 16 patches"),
        ({"blocks": (4,)}, "0 to 3"),
        ({"blocks": ()}, "must rise"),
    ],
)
def test_refuses_impossible_budgets(wrong, reason):
    with pytest.raises(BudgetError, match=reason) as caught:
        built(vits.served("vit"), **{"blocks": (1,)} | wrong)
    assert "\n" not in str(caught.value)
