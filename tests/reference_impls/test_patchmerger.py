"""What patchmerger's weights must be: shares of the patches, whatever their order."""

import torch

from reference_impls.layers.stages import Stages
from reference_impls.reducers.patchmerger import METHOD, MergingQueries
from tests.reference_impls import vits


def made():
    torch.manual_seed(0)
    return MergingQueries(4, 3).double(), torch.rand(2, 5, 4).double().requires_grad_()


def test_every_new_token_is_a_mean_of_patches_in_any_order():
    layer, x = made()
    weights, values = layer(x)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(2, 3).double())
    turned, others = layer(x.flip(1))
    torch.testing.assert_close(weights @ values, turned @ others)


def test_gradients_are_right_and_reach_every_parameter():
    layer, x = made()
    assert torch.autograd.gradcheck(layer, (x,))
    reduced = vits.randomised(METHOD.build(vits.served("vit"), Stages(blocks=(1, 2))))
    reduced.train()(vits.images_for(reduced.model)).square().sum().backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in reduced.reduction.parameters())


def test_a_trace_follows_patches_to_where_most_of_them_goes():
    reduced = METHOD.build(vits.served("dinov2-registers"), Stages(keep_rate=0.5, blocks=(1,)))
    source = reduced.trace(vits.images_for(reduced.model)).sources[-1]
    assert source[:, :5].tolist() == [list(range(5))] * 2
    assert 5 <= source[:, 5:].min() <= source[:, 5:].max() < 13
