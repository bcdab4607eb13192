"""DiffRate: the cost of every published schedule, its sorting and merging, the search for rates, and refusals."""

import pytest
import torch

from reference_impls.layers.diffrate_schedules import BUDGETS, tables
from reference_impls.layers.rate_search import RateCandidates, masked_merge, masked_softmax
from reference_impls.layers.reduction import TokenState
from reference_impls.layers.sorted_compression import merge_last
from reference_impls.reducers import diffrate
from reference_impls.reducers.diffrate import DiffRateSettings, searching
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError, UnsupportedBackboneError

SIZES = {
    "vit-t": {"embed_dim": 192, "num_heads": 3},
    "vit-s": {"embed_dim": 384, "num_heads": 6},
    "vit-b": {"embed_dim": 768, "num_heads": 12},
    "vit-l": {"embed_dim": 1024, "num_heads": 16, "depth": 24},
    "vit-h": {"embed_dim": 1280, "num_heads": 16, "depth": 32, "patch_size": 14},
}
GMAC = {
    "vit-t-deit": (1.003, 0.902, 0.809, 0.726, 0.655),
    "vit-s-deit": (3.108, 2.905, 2.709, 2.504, 2.327),
    "vit-b-deit": (12.522, 11.517, 10.434, 9.985, 8.730),
    "vit-b-mae": (11.517, 10.418, 10.002, 8.710),
    "vit-l-mae": (46.083, 42.290, 38.480, 34.691, 31.004),
    "vit-h-mae": (124.387, 103.336, 92.107, 83.646),
}
"""What the release computes for its schedules, from the dearest."""


def meta(name):
    pool = "avg" if name.endswith("mae") else "token"
    with torch.device("meta"):
        return vits.VisionTransformer(**SIZES[name[:5]], global_pool=pool)


@pytest.mark.parametrize("name", GMAC)
def test_every_schedule_costs_what_the_release_says(name):
    model = meta(name)
    for budget, expected in zip(tables()[name], GMAC[name], strict=True):
        reduced = diffrate.METHOD.build(model, DiffRateSettings(budget=budget))
        # The release projects one patch more than there are.
        macs = reduced.cost.macs(reduced.schedule) + reduced.cost.embed // reduced.backbone.patches
        assert macs / 1e9 == pytest.approx(expected, abs=0.0011)


def test_a_budget_takes_the_dearest_schedule_below_it():
    model = meta("vit-s-deit")
    given = {
        budget: diffrate.METHOD.build(model, DiffRateSettings(budget=budget)).schedule[-2].mlp
        for budget in (None, 99.0, 3.1, 3.0, 2.9)
    }
    assert given == {None: 68, 99.0: 68, 3.1: 68, 3.0: 56, 2.9: 56}
    assert list(BUDGETS) == sorted(BUDGETS, reverse=True)


def test_numbers_act_by_their_running_minimum():
    model = vits.served("vit")
    settings = DiffRateSettings(prune_kept=(99, 10, 12, 8), merge_kept=(99, 9, 12, 9))
    assert [block.mlp for block in diffrate.METHOD.build(model, settings).schedule] == [17, 9, 9, 8]


def test_merging_is_a_plain_mean_and_discounts_sizes():
    x = torch.tensor([[[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [3.0, 4.0]]], dtype=torch.float64)
    state = merge_last(TokenState(x, torch.tensor([[1.0, 5.0, 1.0, 2.0, 10.0]], dtype=torch.float64)), 3, prefix=1)
    torch.testing.assert_close(state.x[0], torch.tensor([[9, 9], [1, 0], [1, 7 / 3]], dtype=torch.float64))
    assert state.size[0].tolist() == pytest.approx([1, 5, 1 + 2 * 1.0 + 10 * 0.8])


def test_opposite_tokens_leave_a_size_that_has_a_logarithm():
    x = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.1]]])
    assert merge_last(TokenState(x), 2, prefix=1).size.log().isfinite().all()


def test_candidates_keep_their_expectation():
    candidates = RateCandidates(range(8, 0, -1))
    assert candidates.kept.item() == pytest.approx(4.5)
    assert candidates.mask(8).tolist() == [1] * 4 + [0] * 4  # 4.5 is rounded to the even number
    candidates.selected_probability.data[2] = 50.0
    assert candidates.mask(8).tolist() == [1] * 6 + [0] * 2


def test_gradient_of_a_mask_is_that_of_the_probability_to_be_kept():
    candidates = RateCandidates(range(6, 0, -1)).double()
    weight = torch.randn(6, dtype=torch.float64)
    (candidates.mask(6) * weight).sum().backward()

    def soft(logits):
        probability = logits.softmax(dim=0)
        return sum(weight[rank] * probability[: 6 - rank].sum() for rank in range(6))

    logits = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(soft, logits)
    torch.testing.assert_close(candidates.selected_probability.grad, torch.autograd.grad(soft(logits), logits)[0])


def test_masked_softmax_is_attention_without_the_hidden_tokens():
    logits = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 1, 1, 1]], dtype=torch.float64)
    hidden = logits.masked_fill(mask[:, None, None] == 0, -torch.inf).softmax(dim=-1)
    torch.testing.assert_close(masked_softmax(logits, mask), hidden)
    assert torch.autograd.gradcheck(masked_softmax, (logits, mask.requires_grad_()))


def test_merging_in_place_equals_merging():
    x, size = torch.randn(2, 9, 4, dtype=torch.float64), 1 + torch.rand(2, 9, dtype=torch.float64)
    x = x + 3  # so that all cosines are positive, and no size is below one
    rank = torch.arange(9).expand(2, -1)
    pruned, kept = (rank < 8).double(), (rank < 5).double()
    masked = masked_merge(TokenState(x, size), pruned, kept, prefix=1)
    removed = merge_last(TokenState(x[:, :8], size[:, :8]), 5, prefix=1)
    torch.testing.assert_close(masked.x[:, :5], removed.x)
    torch.testing.assert_close(masked.size[:, :5], removed.size)


@pytest.mark.parametrize("name", ["deit", "deit-distilled", "average-beside-class", "dinov3", "dinov2-registers"])
def test_a_search_sees_what_its_schedule_does(name):
    model = vits.served(name)
    images, search = vits.images_for(model), searching(model)
    generator = torch.Generator().manual_seed(0)
    for parameter in search.reduction.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    with torch.no_grad():
        kept = search.reduction.learned()
        found = diffrate.METHOD.build(model, DiffRateSettings(prune_kept=kept[0], merge_kept=kept[1]))
        assert found.schedule[-1].mlp < search.backbone.tokens
        search.reduction.train()
        torch.testing.assert_close(search(images), found(images), rtol=1e-6, atol=1e-6)


def test_rates_are_learned_by_gradients():
    model = vits.served("deit")
    search = searching(model)
    search.reduction.train()
    optimiser = torch.optim.Adam(search.reduction.parameters(), lr=0.1, eps=1e-16)  # a small model costs little
    budget = 0.8 * search.cost.macs(search.backbone.unreduced()) / 1e9
    before = search.reduction.cost_loss(budget).item()
    for _ in range(30):
        optimiser.zero_grad()
        search.reduction.cost_loss(budget).backward()
        optimiser.step()
    assert search.reduction.cost_loss(budget).item() < before / 2
    optimiser.zero_grad()
    search(vits.images_for(model)).square().sum().backward()
    learned = [p.grad for name, p in search.reduction.named_parameters() if 1 <= int(name.split(".")[1]) < 3]
    assert all(grad is not None and grad.abs().sum() > 0 for grad in learned)


def test_the_searched_cost_is_the_schedules():
    search = searching(vits.served("deit"))
    for block in search.reduction.blocks:
        for candidates in block.values():
            candidates.selected_probability.data[0] = 60.0  # the first candidate keeps all
    assert search.reduction.macs().item() == pytest.approx(search.cost.macs(search.backbone.unreduced()))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({}, "no schedule was searched for 4 blocks"),
        ({"budget": 2.9}, "no schedule was searched for 4 blocks"),
        ({"prune_kept": (9, 9, 9, 9)}, "both"),
        ({"prune_kept": (9,) * 4, "merge_kept": (9,) * 4, "budget": 2.9}, "either"),
        ({"prune_kept": (9,) * 3, "merge_kept": (9,) * 4}, "4 numbers"),
        ({"prune_kept": (9, 9, 9, 1), "merge_kept": (9,) * 4}, "above the 1 prefix"),
    ],
)
def test_refuses_an_impossible_budget(wrong, reason):
    with pytest.raises(BudgetError, match=reason) as caught:
        diffrate.METHOD.build(vits.served("vit"), DiffRateSettings(**wrong))
    assert "\n" not in str(caught.value)


def test_refuses_a_budget_below_all_that_were_searched():
    with pytest.raises(BudgetError, match="below all that were searched for vit-s-deit"):
        diffrate.METHOD.build(meta("vit-s-deit"), DiffRateSettings(budget=1.0))


@pytest.mark.parametrize("name", ["average", "maximum"])
def test_refuses_to_search_where_masks_are_not_known(name):
    with pytest.raises(UnsupportedBackboneError, match="class or mean pooling"):
        searching(vits.served(name))
