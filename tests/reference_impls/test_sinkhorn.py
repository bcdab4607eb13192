"""Sinkhorn's plan against plain scaling of rows and columns."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference_impls.reducers.sinkhorn import METHOD, SinkhornSettings, TransportPlan, sinkhorn_plan
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 4), st.integers(0, 10**6))
def test_the_plan_equals_plain_scaling(centres, patches, iterations, seed):
    scores = torch.randn(2, centres, patches, generator=torch.Generator().manual_seed(seed)).double()
    plan = scores.exp()
    for _ in range(iterations):
        plan = plan / plan.sum(dim=2, keepdim=True)
        plan = plan / plan.sum(dim=1, keepdim=True)
    if iterations == 0:
        plan = plan * (centres + patches)  # no sums were fitted: the release scales what there is
    torch.testing.assert_close(sinkhorn_plan(scores, iterations), plan)


def test_gradients_are_right_and_reach_the_centres():
    torch.manual_seed(0)
    layer, x = TransportPlan(4, 3, 3, 1.0).double(), torch.rand(2, 5, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))
    reduced = METHOD.build(vits.served("vit").train(), SinkhornSettings(blocks=(1, 2)))
    reduced(vits.images_for(reduced.model)).square().sum().backward()
    assert all(each.grad is not None and each.grad.any() for each in reduced.reduction.parameters())


def test_centres_at_length_one_give_the_same():
    """A checkpoint may hold them either way."""
    layer, x = TransportPlan(4, 3, 3, 1.0), torch.rand(2, 5, 4)
    before = layer(x)
    with torch.no_grad():
        layer.v.mul_(3.0)
    torch.testing.assert_close(layer(x), before)


@pytest.mark.parametrize("wrong", [{"iterations": -1}, {"eps": 0.0}, {"eps": float("nan")}])
def test_refuses_an_impossible_plan(wrong):
    with pytest.raises(BudgetError, match="must not be negative"):
        METHOD.build(vits.served("vit"), SinkhornSettings(blocks=(1,), **wrong))
