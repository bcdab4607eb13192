"""DynamicViT's predictors: their cost, what training masks, and that a mask says the same as a cut."""

import pytest
import torch

from reference_impls.layers import predicted_pruning
from reference_impls.layers.stages import Stages
from reference_impls.layers.token_predictor import TokenPredictor, decide, policy_softmax, ratio_loss
from reference_impls.reducers.dynamicvit_haurum import METHOD
from tests.reference_impls import vits
from tokenmark.contracts import MethodError

TWO_STAGES = Stages(keep_rate=0.5, blocks=(1, 3))


def trained(name="vit", stages=TWO_STAGES):
    torch.manual_seed(0)
    reduced = METHOD.build(vits.served(name), stages)
    return vits.randomised(reduced), vits.images_for(reduced.model)


def test_cost_of_deit_small():
    with torch.device("meta"):
        reduced = METHOD.build(vits.VisionTransformer(embed_dim=384, num_heads=6), Stages(keep_rate=0.7))
    assert reduced.cost.macs(reduced.schedule) / 1e9 == pytest.approx(2.878, abs=5e-4)
    assert reduced.extra_macs / 1e9 == pytest.approx(0.103, abs=5e-4)


@pytest.mark.parametrize("name", ["vit", "dinov2-registers", "eva02"])
def test_what_nobody_sees_is_as_good_as_cut(monkeypatch, name):
    """In training with the decisions that evaluation takes the class token sees the same tokens."""
    reduced, images = trained(name)

    def as_in_evaluation(scores, decision):
        best = scores[..., 0].masked_fill(decision == 0, -torch.inf).argsort(dim=1, descending=True)
        count = round(scores.shape[1] * (0.5 if decision.all() else 0.25))
        return torch.zeros_like(decision).scatter(1, best[:, :count], 1.0)

    cut = reduced(images)
    monkeypatch.setattr(predicted_pruning, "decide", as_in_evaluation)
    torch.testing.assert_close(reduced.train()(images), cut, rtol=1e-4, atol=1e-4)


def test_training_reaches_every_predictor():
    reduced, images = trained()
    reduced.train()(images)
    decisions = reduced.reduction.decisions
    assert all(decision.shape == (2, 16) for decision in decisions)
    assert (decisions[1] <= decisions[0]).all()
    reduced.reduction.ratio_loss().backward()
    own = list(reduced.reduction.parameters())
    assert all(each.grad is not None and each.grad.isfinite().all() for each in own)
    assert sum(bool(each.grad.any()) for each in own) == len(own)


def test_the_ratio_loss_is_of_a_training_pass():
    with pytest.raises(MethodError, match="training mode first"):
        trained()[0].reduction.ratio_loss()
    kept = (torch.tensor([[1.0, 1, 0, 0], [1, 1, 1, 1]]), torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]))
    assert ratio_loss(kept, (0.5, 0.25)).item() == pytest.approx((0.25 + 0.0625) / 4)


def test_a_dropped_token_stays_dropped():
    decision = torch.tensor([[1.0, 0, 1, 0]]).double()
    drawn = decide(torch.zeros(1, 4, 2).double().log_softmax(-1), decision)
    assert drawn[0, 1] == drawn[0, 3] == 0
    assert set(drawn.flatten().tolist()) <= {0.0, 1.0}


def test_masked_softmax_sees_kept_tokens_and_itself():
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    everyone, some = torch.ones(2, 4).double(), torch.tensor([[1.0, 1, 0, 0]] * 2).double()
    torch.testing.assert_close(policy_softmax(logits, everyone, eps=0.0), logits.softmax(-1))
    rows = policy_softmax(logits, some, eps=0.0)
    assert ((rows > 0) == (torch.eye(4).bool() | some.bool()[0])).all()
    torch.testing.assert_close(rows.sum(-1), torch.ones(2, 3, 4).double())


def test_gradients_are_right():
    torch.manual_seed(0)
    predictor = TokenPredictor(4, eps=1e-6).double()
    x, decision = (torch.rand(shape).double().requires_grad_() for shape in ((2, 3, 4), (2, 3)))
    assert torch.autograd.gradcheck(predictor, (x, decision))
    assert torch.autograd.gradcheck(policy_softmax, (torch.rand(2, 1, 3, 3).double().requires_grad_(), decision))
