"""CLCA against its release's vectors: its counts, its cache in plain steps, and what its own parameters learn from."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from reference_impls.reducers import clca
from reference_impls.reducers.clca import ClcaSettings
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError


def test_counts_of_a_small_model():
    """16 patches, class, one carrier; each block caches two tokens until block 2 = depth - 2, the last recovery."""
    reduced = clca.METHOD.build(vits.served("vit"), ClcaSettings(keep_rate=0.5, blocks=(1,)))
    left = 1 + math.ceil(0.5 * 17) + 1
    counts = [(block.attention, block.mlp) for block in reduced.schedule]
    assert counts == [(18, 18), (18, left), (left + 2, left + 2), (left + 4, left + 4)]


def test_the_cache_holds_means_and_carriers():
    """Nothing is dropped: the last block's tokens are those of the one before, and what blocks 0 to 1 gave."""
    model = vits.served("vit")
    images = vits.images_for(model)
    reduced = clca.METHOD.build(model, ClcaSettings(keep_rate=1.0, blocks=(2,), carriers=2))
    with torch.no_grad():
        x = model.norm_pre(model._pos_embed(model.patch_embed(images)))
        x = torch.cat((x, reduced.reduction.carriers.expand(2, -1, -1)), dim=1)
        cache = []
        for block in model.blocks[:2]:
            x = block(x)
            cache += [x[:, 1:17].mean(dim=1, keepdim=True), x[:, -2:]]
        x = torch.cat((model.blocks[2](x), *cache), dim=1)
        classes = torch.stack((x[:, 0], model.blocks[3](x)[:, 0]), dim=2)
        torch.testing.assert_close(reduced.trace(images).tokens[2], x)
        torch.testing.assert_close(reduced(images), reduced.reduction.aggregation(classes))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"keep_rate": 0.0}, "above 0"),
        ({"keep_rate": (0.5, 1.5)}, "not above 1"),
        ({"keep_rate": (0.5,)}, "1 rates for 2 blocks"),
        ({"blocks": (1, 4)}, "0 to 3"),
        ({"carriers": -1}, "must not be negative"),
        ({"filters": -1}, "must not be negative"),
    ],
)
def test_refuses_what_cannot_be(wrong, reason):
    with pytest.raises(BudgetError, match=reason) as caught:
        clca.METHOD.build(vits.served("vit"), ClcaSettings(**{"blocks": (1, 2)} | wrong))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("changes", [{"carriers": 0}, {"fuse": False}, {"filters": 0}, {"blocks": (0, 3)}])
def test_every_option_runs_and_trains_its_own_parameters(changes):
    model = vits.served("vit").train()
    reduced = clca.METHOD.build(model, ClcaSettings(**{"keep_rate": 0.5, "blocks": (1, 2)} | changes))
    cross_entropy(reduced(vits.images_for(model, 3)), torch.tensor([0, 1, 2])).backward()
    assert all(parameter.grad is not None for parameter in reduced.reduction.parameters())


@pytest.mark.parametrize("filters", [0, 2])
def test_the_classifier_has_its_gradients(filters):
    torch.manual_seed(0)
    head = clca.layer_classifier(3, 2, filters, 2).double()
    x = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(head, x)
