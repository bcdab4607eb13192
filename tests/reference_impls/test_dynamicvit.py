"""DynamicViT: published costs, what the whole model teaches, and what training reaches, on DeiT, ConvNeXt and Swin."""

import pytest
import torch
from torch.nn.functional import gumbel_softmax

from reference_impls.classifiers import dynamicvit_convnext, dynamicvit_swin
from reference_impls.layers.distillation import logit_distillation, token_distillation
from reference_impls.layers.lv_vit import LvVit
from reference_impls.layers.stages import Stages
from reference_impls.layers.token_predictor import decide, ratio_loss
from reference_impls.layers.two_paths import Route, chosen
from reference_impls.reducers.dynamicvit import METHOD
from tests.reference_impls import vits
from tokenmark.contracts import MethodError

SMALL = {
    "convnext": lambda: dynamicvit_convnext.METHOD.build(
        img_size=32, depths=(1, 1, 3, 1), dims=(4, 4, 8, 4), pruning_loc=(1, 2), sparse_ratio=(0.75, 0.5), num_classes=3
    ),
    "swin": lambda: dynamicvit_swin.METHOD.build(
        img_size=64, embed_dim=4, depths=(1, 1, 3, 1), num_heads=(1, 1, 2, 2), window_size=2, pruning_loc=(1, 2),
        sparse_ratio=(0.75, 0.5), num_classes=3,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "total"), [("deit_small_patch16_224", 2.981), ("deit_base_patch16_224", 11.476)])
def test_cost_of_deit(name, total):
    with torch.device("meta"):
        reduced = METHOD.build(vits.create_model(name), Stages(keep_rate=0.7))
    assert (reduced.cost.macs(reduced.schedule) + reduced.extra_macs) / 1e9 == pytest.approx(total, abs=6e-4)


@pytest.mark.parametrize(
    ("sizes", "rate", "blocks", "total"),
    [
        ({}, 0.5, (4, 8, 12), 3.7),
        ({}, 0.7, (4, 8, 12), 4.6),
        ({"embed_dim": 512, "depth": 20, "num_heads": 8}, 0.7, (5, 10, 15), 8.5),
    ],
)
def test_cost_of_lv_vit(sizes, rate, blocks, total):
    """The README's costs, counted by hand, printed to one digit."""
    with torch.device("meta"):
        reduced = METHOD.build(LvVit(**sizes), Stages(keep_rate=rate, blocks=blocks))
    assert (reduced.cost.macs(reduced.schedule) + reduced.extra_macs) / 1e9 == pytest.approx(total, rel=0.03)


def test_distillation_by_hand():
    logits, teacher = torch.randn(2, 3, 4, dtype=torch.float64).unbind(0)
    p, q = teacher.softmax(-1), logits.softmax(-1)
    torch.testing.assert_close(logit_distillation(logits, teacher), (p * (p / q).log()).sum() / 3)
    tokens, whole = torch.randn(2, 3, 4, 5, dtype=torch.float64).unbind(0)
    decision = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.float64)
    kept = decision.bool()
    torch.testing.assert_close(
        token_distillation(tokens, whole, decision), (tokens[kept] - whole[kept]).square().mean()
    )
    assert token_distillation(tokens, whole, torch.zeros_like(decision)) == 0


def test_gradients_of_all_losses_are_right():
    torch.manual_seed(0)
    logits, teacher, tokens, whole, kept = (
        torch.rand(shape).double().requires_grad_() for shape in ((2, 3), (2, 3), (2, 4, 5), (2, 4, 5), (2, 4))
    )
    fixed = teacher.detach(), whole.detach(), kept.detach()
    assert torch.autograd.gradcheck(lambda x: logit_distillation(x, fixed[0]), (logits,))
    assert torch.autograd.gradcheck(lambda x: token_distillation(x, fixed[1], fixed[2]), (tokens,))
    assert torch.autograd.gradcheck(lambda x: ratio_loss((x, x * x), (0.5, 0.3)), (kept,))
    (logit_distillation(logits, teacher) + token_distillation(tokens, whole, kept)).backward()
    assert teacher.grad is None
    assert whole.grad is None
    assert kept.grad is None


def test_a_drawn_decision_has_the_gradient_of_the_soft_one():
    scores = torch.randn(2, 5, 2, dtype=torch.float64).log_softmax(-1).requires_grad_()
    weight = torch.randn(2, 5, dtype=torch.float64)
    grads = []
    for draw in (lambda: decide(scores, torch.ones(2, 5).double()), lambda: gumbel_softmax(scores)[..., 0]):
        torch.manual_seed(3)
        grads += torch.autograd.grad((draw() * weight).sum(), scores)
    torch.testing.assert_close(*grads)


def test_ways_in_evaluation_and_in_training():
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    scores = torch.randn(2, 5, 2, dtype=torch.float64).log_softmax(-1)
    route = chosen(scores, 0.6, None, training=False)
    slow = torch.zeros(2, 5, dtype=torch.bool).scatter(1, route.order[:, :3], value=True)
    out = route.run(x, torch.sin, torch.cos)
    torch.testing.assert_close(out, torch.where(slow[..., None], x.sin(), x.cos()))
    drawn = Route(route.order, 3, slow.double())
    torch.testing.assert_close(drawn.run(x, torch.sin, torch.cos), out)
    weight = torch.rand(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, weight: Route(route.order, 3, weight).run(x, torch.sin, torch.cos), (x.requires_grad_(), weight)
    )
    before = torch.tensor([[1.0, 0, 1, 0, 0]] * 2).double()
    decision = chosen(scores, 0.6, before, training=True).decision
    assert (decision <= before).all()


@pytest.mark.parametrize("name", ["vit", "lv-vit"])
def test_the_losses_reach_the_predictors_and_the_model(name):
    torch.manual_seed(0)
    reduced = vits.randomised(METHOD.build(vits.served(name), Stages(keep_rate=0.5, blocks=(1, 3)))).train()
    images = vits.images_for(reduced.model)
    trace = reduced.trace(images)
    patches = trace.tokens[-1][:, 1:]
    loss = reduced.reduction.losses(trace.logits, patches, torch.randn(2, 5).double(), torch.randn_like(patches))
    loss.backward()
    assert all(value.grad is not None and value.grad.any() for value in reduced.reduction.parameters())
    assert reduced.model.blocks[0].attn.qkv.weight.grad.any()


@pytest.mark.parametrize("name", SMALL)
def test_the_ratio_loss_of_classifiers_reaches_their_predictors(name):
    torch.manual_seed(0)
    model = vits.randomised(SMALL[name]())
    with pytest.raises(MethodError, match="training mode first"):
        model.ratio_loss()
    model.train()(torch.randn(2, *model.image_shape).double())
    first, second = model.decisions
    assert (second <= first).all()
    model.ratio_loss().backward()
    predictors = model.score_predictor if name == "convnext" else model.layers[2].score_predictor
    assert all(value.grad is not None and value.grad.any() for value in predictors.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_a_ratio_of_one_takes_the_slow_way_everywhere(name):
    model = vits.randomised(SMALL[name]())
    images = torch.randn(2, *model.image_shape).double()
    with torch.no_grad():
        model.ratios = (1.0, 1.0)
        whole = model(images)
        for key, value in model.named_parameters():
            if "fast" in key:
                value.zero_()
        torch.testing.assert_close(model(images), whole)
        model.ratios = (0.5, 0.25)
        assert not torch.allclose(model(images), whole)
