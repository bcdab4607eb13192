"""DiffRate on CAFormer: the cost of its schedules, its merging, and what it refuses."""

import pytest
import torch

from reference_impls.classifiers.diffrate_caformer import METHOD, MergingCaformer
from tokenmark.contracts import BudgetError
from tokenmark.measures.cost import counted_macs

SMALL = {"depths": (1, 1, 3, 2), "dims": (16, 32, 64, 96), "num_classes": 5, "img_size": 64}


def small(**changes):
    torch.manual_seed(0)
    return MergingCaformer(**SMALL, **changes).double().eval()


@pytest.mark.parametrize(("budget", "gmac"), [("5.2", 5.215), ("5.6", 5.604), ("6.0", 5.995)])
def test_every_schedule_costs_what_the_release_says(budget, gmac):
    with torch.device("meta"):
        model = METHOD.build(**METHOD.variants[f"caformer-s36-{budget}"].config)
    # The release takes both layers of the head for as wide as the logits.
    assert (model.macs + 2048 * 1000 - 512 * 2048) / 1e9 == pytest.approx(gmac, abs=5e-4)


def test_the_formula_agrees_with_the_counter():
    model = small(merge_kept=(16, 11, 8, 4, 3))
    assert counted_macs(model, torch.randn(1, 3, 64, 64, dtype=torch.float64)) == pytest.approx(model.macs, rel=0.01)


def test_merging_changes_the_logits_and_an_image_does_not_depend_on_its_batch():
    images = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    whole, merged = small(), small(merge_kept=(16, 11, 8, 4, 3))
    with torch.no_grad():
        assert (whole(images) - merged(images)).abs().max() > 1e-6
        torch.testing.assert_close(merged(images)[1:2], merged(images[1:2]), rtol=1e-9, atol=1e-9)
        assert merged(images[:0]).shape == (0, 5)


def test_traces_without_graph_breaks_and_runs_in_low_precision():
    torch._dynamo.reset()
    model = small(merge_kept=(16, 11, 8, 4, 3)).float()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(images), model(images))
        assert model.bfloat16()(images.bfloat16()).isfinite().all()


@pytest.mark.parametrize("wrong", [(16,) * 4, (16, 11, 8, 4, 1)])
def test_refuses_an_impossible_schedule(wrong):
    with pytest.raises(BudgetError, match="must be 5 numbers"):
        small(merge_kept=wrong)
