"""TokenLearner, in its own network and on a vision transformer that is there: what its vectors do not show."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from reference_impls.classifiers.tokenlearner import METHOD
from reference_impls.layers.token_learner import TokenFuser, TokenLearnerV10, TokenLearnerV11
from reference_impls.reducers import tokenlearner_vit
from reference_impls.reducers.tokenlearner_vit import TokenLearnerSettings
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError
from tokenmark.measures.cost import counted_macs


def silenced(module):
    """With weights of zero, but for the norms."""
    with torch.no_grad():
        for name, value in module.named_parameters():
            if "norm" not in name:
                value.zero_()
    return module


def test_maps_that_say_nothing_pool():
    x = torch.randn(2, 16, 8)
    mean = x.mean(dim=1, keepdim=True).expand(-1, 3, -1)
    torch.testing.assert_close(silenced(TokenLearnerV11(8, 3))(x), mean)
    torch.testing.assert_close(silenced(TokenLearnerV10(8, 3, grid=4))(x), 8 * mean)


def test_convolutions_look_at_four_neighbours_each_way():
    x = torch.randn(1, 49, 8, dtype=torch.float64, requires_grad=True)
    weights = TokenLearnerV10(8, 3, grid=7).double().maps(x)
    (seen,) = torch.autograd.grad(weights[0, 0, 0], x)
    touched = seen[0].any(dim=1).reshape(7, 7)
    assert touched[:5, :5].all()
    assert int(touched.sum()) == 25


def test_the_fuser_gives_every_place_its_mixture():
    fuser = TokenFuser(8, 3)
    tokens, places = torch.randn(2, 3, 8), torch.randn(2, 16, 8)
    out = fuser(tokens, places)
    assert out.shape == places.shape
    torch.testing.assert_close(fuser(tokens, places.flip(1)), out.flip(1))


@pytest.mark.parametrize(("variant", "width", "depth"), [("s-16", 384, 12), ("b-16", 768, 12), ("l-16", 1024, 24)])
def test_costs_what_its_tokens_cost(variant, width, depth):
    with torch.device("meta"):
        model = METHOD.build(**METHOD.variants[variant].config).eval()
        image = torch.zeros(1, *model.image_shape)
    with sdpa_kernel(SDPBackend.MATH):
        counted = counted_macs(model, image)
    counts = [196] * 9 + [16] * (depth - 9)
    blocks = sum(12 * n * width**2 + 2 * n * n * width for n in counts)
    learner = 196 * (64 * (width + 16) + 16 * width)
    assert counted == 196 * 768 * width + blocks + learner + 1000 * width


def test_on_a_transformer_only_prefix_and_learned_tokens_are_left():
    with torch.device("meta"):
        model = vits.VisionTransformer(embed_dim=384, num_heads=6)
    reduced = tokenlearner_vit.METHOD.build(model, TokenLearnerSettings())
    assert [each.attention for each in reduced.schedule] == [197] * 9 + [17] * 3
    assert reduced.extra_macs == 196 * (64 * (384 + 16) + 16 * 384)


def test_its_own_weights_are_trained_and_their_gradients_right():
    model = vits.served("vit")
    reduced = tokenlearner_vit.METHOD.build(model, TokenLearnerSettings(tokens=4, block=2))
    reduced(vits.images_for(model)).sum().backward()
    trained = dict(reduced.reduction.named_parameters())
    assert all(each.grad is not None and (each.ndim < 2 or each.grad.any()) for each in trained.values())
    learner = TokenLearnerV11(4, 2).double()
    assert torch.autograd.gradcheck(learner, torch.randn(1, 5, 4, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("wrong", [{"tokens": 0}, {"tokens": 17}, {"block": -1}, {"block": 4}])
def test_refuses_tokens_and_blocks_that_there_are_not(wrong):
    asked = TokenLearnerSettings(**{"tokens": 4, "block": 2} | wrong)
    with pytest.raises(BudgetError) as caught:
        tokenlearner_vit.METHOD.build(vits.served("vit"), asked)
    assert "\n" not in str(caught.value)
