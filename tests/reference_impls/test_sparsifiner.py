"""Sparsifiner against its release's vectors, its mask in plain loops, and what its predictors learn from."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impls.layers.mask_predictor import MaskPredictor, Sparsity
from reference_impls.reducers import sparsifiner
from reference_impls.reducers.sparsifiner import SparsifinerSettings
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError, MethodError, UnsupportedBackboneError

SMALL = {"attn_keep_rate": 0.5, "reduce_n": 2, "basis_top": 4}


def greatest(values, count):
    return sorted(range(len(values)), key=lambda i: (-values[i], i))[:count]


def oracle(predictor, q, k, alive, budget, rules):
    """The keys that each patch of one image and head may see, by plain loops."""
    weights = {name: value.detach().numpy() for name, value in predictor.named_parameters()}
    heads, tokens = q.shape[:2]
    basis = np.abs(weights["proj_back_n"])
    basis = np.where(basis > rules.basis_above, basis, 0.0)
    found = np.zeros((heads, tokens, tokens), dtype=bool)
    found[:, 0] = True
    present = [True, *alive]
    for head in range(heads):
        narrow_q, narrow_k = (
            (x[head] @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]) * np.array(present)[:, None]
            for x, name in ((q, "proj_c_q"), (k, "proj_c_k"))
        )
        for query in range(1, tokens):
            logits = narrow_q[query] @ narrow_k.T @ weights["proj_n"] / math.sqrt(heads)
            share = np.exp(logits - logits.max())
            share /= share.sum()
            top = greatest(share, rules.basis_top)
            score = sum(share[row] * basis[:, row] for row in top)
            found[head, query, greatest(np.where(present, score, -np.inf), budget)] = True
    return found


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 3))
def test_the_mask_equals_plain_loops(seed, budget, top):
    torch.manual_seed(seed)
    rules = Sparsity(reduce_n=2, basis_top=top, basis_above=0.01)
    predictor = MaskPredictor(7, 1, 4, budget, rules).double()
    q, k = torch.randn(2, 1, 3, 7, 4, dtype=torch.float64)
    alive = torch.randperm(6)[None] < budget
    mask = predictor(q, k, alive).mask[0].numpy()
    wanted = oracle(predictor, q[0].numpy(), k[0].numpy(), alive[0].tolist(), budget, rules)
    # The queries of patches that are out are all alike, and nobody looks at what they see.
    rows = [0, *(1 + alive[0].nonzero().flatten()).tolist()]
    assert (mask[:, rows] == wanted[:, rows]).all()


def test_attention_is_as_dense_as_asked():
    model = vits.served("vit")
    reduced = sparsifiner.METHOD.build(model, SparsifinerSettings(**SMALL), attention="eager")
    assert [predictor.budget for predictor in reduced.reduction.predictors] == [9] * 4
    assert reduced.schedule == reduced.backbone.unreduced()
    assert reduced.extra_macs > 0


def test_pruned_patches_are_zeros_that_change_nothing():
    model = vits.served("vit")
    images = vits.images_for(model)
    settings = SparsifinerSettings(**SMALL, prune_blocks=(0, 2), token_keep_rate=(0.5, 0.25))
    reduced = sparsifiner.METHOD.build(model, settings)
    assert [predictor.budget for predictor in reduced.reduction.predictors] == [9, 8, 8, 4]
    with torch.no_grad():
        trace = reduced.trace(images)
    for block, left in enumerate((8, 8, 4, 4)):
        out = trace.sources[block] < 0
        assert (~out).sum(dim=1).tolist() == [1 + left] * 2
        assert (trace.tokens[block][out] == 0).all()
        assert (trace.tokens[block][~out] != 0).any(dim=1).all()


def test_a_query_that_may_see_nothing_gets_nothing():
    model = vits.served("vit")
    images = vits.images_for(model)
    settings = SparsifinerSettings(**SMALL, score_above=10.0)
    fused, eager = (sparsifiner.METHOD.build(model, settings, attention=kind) for kind in ("fused", "eager"))
    with torch.no_grad():
        x = model.norm_pre(model._pos_embed(model.patch_embed(images)))
        first = x[:, 1:] + model.blocks[0].attn.proj.bias
        first = first + model.blocks[0].mlp(model.blocks[0].norm2(first))
        torch.testing.assert_close(fused.trace(images).tokens[0][:, 1:], first)
        torch.testing.assert_close(fused(images), eager(images))
    fused(images).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"attn_keep_rate": 0.0}, "above 0"),
        ({"attn_keep_rate": (0.5, 0.5)}, "each of 4 blocks"),
        ({"reduce_n": 18}, "1 to 17"),
        ({"reduce_c": 0}, "width of a head"),
        ({"basis_top": 9}, "1 to 8"),
        ({"prune_blocks": (1,)}, "must fall"),
        ({"prune_blocks": (1, 2), "token_keep_rate": (0.5, 0.7)}, "must fall"),
        ({"prune_blocks": (4,), "token_keep_rate": (0.5,)}, "0 to 3"),
    ],
)
def test_refuses_what_cannot_be(wrong, reason):
    with pytest.raises(BudgetError, match=reason) as caught:
        sparsifiner.METHOD.build(vits.served("vit"), SparsifinerSettings(**SMALL | wrong))
    assert "\n" not in str(caught.value)


def test_pruning_asks_for_a_class_token():
    settings = SparsifinerSettings(**SMALL, prune_blocks=(1,), token_keep_rate=(0.5,))
    with pytest.raises(UnsupportedBackboneError, match="no class token"):
        sparsifiner.METHOD.build(vits.served("average"), settings)


@pytest.mark.parametrize("reconstructs", [True, False])
def test_reconstruction_trains_every_predictor(reconstructs):
    model = vits.served("vit")
    images = vits.images_for(model)
    torch.manual_seed(0)
    reduced = sparsifiner.METHOD.build(model, SparsifinerSettings(**SMALL, basis_above=0.0))
    with pytest.raises(MethodError, match="training pass"):
        reduced.reduction.reconstruction_loss()
    reduced.train()
    reduced.reduction.reconstructs = reconstructs
    logits = reduced(images)
    if reconstructs:
        torch.testing.assert_close(logits, model(images))
    own = reduced.reduction.memory[1::2]
    torch.testing.assert_close(reduced.reduction.reconstruction_loss(own), reduced.reduction.reconstruction_loss())
    with pytest.raises(MethodError, match="1 blocks, this model 4"):
        reduced.reduction.reconstruction_loss(own[:1])
    reduced.reduction.reconstruction_loss(own).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in reduced.reduction.parameters())


@pytest.mark.parametrize("shared", [False, True])
def test_a_predictor_has_the_gradients_of_its_loss(shared):
    torch.manual_seed(0)
    predictor = MaskPredictor(5, 1, 4, 2, Sparsity(reduce_n=2, basis_top=1, shared_projection=shared)).double()
    q, k, rows = torch.randn(3, 1, 2, 5, 4, dtype=torch.float64)
    names, values = zip(*predictor.named_parameters(), strict=True)

    def loss(*values):
        state = dict(zip(names, values, strict=True))
        guess = torch.func.functional_call(predictor, state, (q, k), {"whole": True}).attention
        return (guess[..., :4] - rows[:, :, 1:]).square().sum()

    assert torch.autograd.gradcheck(loss, tuple(each.detach().clone().requires_grad_() for each in values))
