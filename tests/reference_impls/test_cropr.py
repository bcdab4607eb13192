"""Token Cropr against its release's vectors, its schedule, its fusion, and what its routers learn from."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from reference_impls.reducers import cropr
from reference_impls.reducers.cropr import CroprSettings
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError, MethodError


def test_counts_of_the_paper():
    """MAE's ViT-L, 8 patches after every block: 188, 180, ... 20, and all 197 in the last block."""
    with torch.device("meta"):
        model = vits.VisionTransformer(embed_dim=16, depth=24, num_heads=2, num_classes=2)
    schedule = cropr.METHOD.build(model, CroprSettings()).schedule
    assert [block.attention for block in schedule] == [197, *range(188, 19, -8), 197]
    assert all(block.mlp == block.attention for block in schedule)


@pytest.mark.parametrize("backbone", ["vit", "dinov3", "average"])
def test_every_patch_is_in_the_last_block_and_in_its_place(backbone):
    model = vits.served(backbone)
    trace = cropr.METHOD.build(model, CroprSettings(r=2)).trace(vits.images_for(model))
    tokens = trace.tokens[-1].shape[1]
    assert trace.sources[1].min() == -1
    assert (trace.sources[-1].sort(dim=1).values == torch.arange(tokens)).all()


def test_without_fusion_dropped_patches_stay_away():
    model = vits.served("vit")
    reduced = cropr.METHOD.build(model, CroprSettings(r=3, llf=False))
    assert [block.attention for block in reduced.schedule] == [17, 13, 10, 7]
    assert (reduced.trace(vits.images_for(model)).sources[-1] < 0).sum(dim=1).tolist() == [10, 10]


def test_dropped_are_the_patches_with_the_least_product():
    model = vits.served("vit")
    images = vits.images_for(model)
    reduced = cropr.METHOD.build(model, CroprSettings(r=4))
    with torch.no_grad():
        x = model.blocks[0](model.norm_pre(model._pos_embed(model.patch_embed(images))))
    score = x[:, 1:] @ reduced.reduction.routers[0].cross_attn.queries.reshape(-1)
    kept = [set(row.topk(11).indices.tolist()) for row in score]
    sources = reduced.trace(images).sources[0][:, 1:]
    assert [set((row >= 0).nonzero().flatten().tolist()) for row in sources] == kept


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [({"r": -1}, "0 to 7"), ({"r": 8}, "0 to 7"), ({"r": 5, "llf": False}, "0 to 4"), ({"heads": 3}, "do not divide")],
)
def test_refuses_what_the_model_has_not(wrong, reason):
    with pytest.raises(BudgetError, match=reason) as caught:
        cropr.METHOD.build(vits.served("vit"), CroprSettings(**{"r": 1} | wrong))
    assert "\n" not in str(caught.value)


def test_auxiliary_losses_train_the_routers_and_nothing_else():
    model = vits.served("vit").train()
    layers = {"heads": 2, "pre_attn_norm": True, "q_proj": True, "k_proj": True, "v_proj": True}
    reduced = cropr.METHOD.build(model, CroprSettings(r=2, **layers))
    labels = torch.tensor([1, 3])
    with pytest.raises(MethodError, match="training pass"):
        reduced.reduction.auxiliary_loss(labels)
    logits = reduced(vits.images_for(model))
    loss = reduced.reduction.auxiliary_loss(labels)
    soft = reduced.reduction.auxiliary_loss(torch.eye(5, dtype=torch.float64)[labels])
    torch.testing.assert_close(loss, soft)
    loss.backward(retain_graph=True)
    assert all(parameter.grad.abs().sum() > 0 for parameter in reduced.reduction.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    reduced.reduction.zero_grad()
    cross_entropy(logits, labels).backward()
    assert all(parameter.grad is None for parameter in reduced.reduction.parameters())


@pytest.mark.parametrize("layers", [{}, {"heads": 2, "q_proj": True, "v_proj": True, "pre_attn_norm": True}])
def test_a_router_has_the_gradients_of_its_loss(layers):
    torch.manual_seed(0)
    router = cropr.QueryRouter(4, 3, mlp_ratio=1.0, **layers).double()
    x, names = torch.randn(2, 5, 4, dtype=torch.float64), [name for name, _ in router.named_parameters()]
    values = tuple(parameter.detach().clone().requires_grad_() for parameter in router.parameters())

    def loss(*values):
        logits = torch.func.functional_call(router, dict(zip(names, values, strict=True)), (x,))
        return cross_entropy(logits, torch.tensor([0, 2]))

    assert torch.autograd.gradcheck(loss, values)
