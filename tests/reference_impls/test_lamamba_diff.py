"""LaMamba-Diff: its scans against their recurrence, its paths, its cost, and what it refuses (its numbers: parity)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impls.generators.lamamba_diff import METHOD, release_arguments
from reference_impls.layers.lamamba_blocks import PatchExpanding
from reference_impls.layers.selective_scan import SelectiveScan2d, linear_recurrence, snake_paths
from tests.reference_impls.latent_generators import with_drawn_weights
from tests.reference_impls.small_generators import SMALL, built
from tests.vector_case import VECTORS
from tokenmark import registry
from tokenmark.contracts import MethodError, TokenizerMethod
from tokenmark.parity.vector import load

CONFIG = SMALL["lamamba-diff"].config
VECTOR = load(VECTORS / "lamamba-diff__small.json")


def step_by_step(decay, new):
    state, states = torch.zeros_like(new[:, 0]), []
    for place in range(new.shape[1]):
        state = decay[:, place] * state + new[:, place]
        states.append(state)
    return torch.stack(states, dim=1)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 600), st.integers(0, 2**31))
def test_chunks_give_the_recurrence(length, seed):
    """Of every length, whether chunks divide it or not; with decays that are 0, and such that hardly are any."""
    generator = torch.Generator().manual_seed(seed)
    decay = torch.rand(2, length, 3, 1, generator=generator).double().pow(torch.tensor([0.0, 0.01, 30.0])[:, None])
    decay[0, length // 2] = 0.0
    new = torch.randn(2, length, 3, 1, generator=generator).double()
    expected = step_by_step(decay, new)
    torch.testing.assert_close(linear_recurrence(decay, new), expected, rtol=1e-12, atol=1e-12 * expected.abs().max())


def test_constant_decay_is_a_geometric_series():
    decay, new = torch.full((1, 300, 1), 0.5).double(), torch.ones(1, 300, 1).double()
    expected = 2.0 - 0.5 ** torch.arange(300).double()
    torch.testing.assert_close(linear_recurrence(decay, new)[0, :, 0], expected)


def test_long_sequences_stay_finite_in_single_precision():
    """Decays whose product is far below the smallest float, and whose inverse would be far above the largest."""
    decay, new = torch.full((1, 4096, 1), 1e-3), torch.ones(1, 4096, 1)
    assert torch.allclose(linear_recurrence(decay, new)[0, 1:], torch.tensor(1.0 / (1.0 - 1e-3)))


@given(st.integers(1, 9))
def test_paths_visit_every_cell_and_step_to_neighbours(side):
    for path in snake_paths(side):
        assert sorted(path.tolist()) == list(range(side**2))
        rows, columns = path // side, path % side
        assert (rows.diff().abs() + columns.diff().abs() == 1).all()


def test_paths_of_a_small_grid():
    assert snake_paths(2).tolist() == [[0, 1, 3, 2], [2, 3, 1, 0], [2, 0, 1, 3], [3, 1, 0, 2]]


@pytest.mark.parametrize("states", [1, 3])
def test_a_scan_is_mamba_s_equations(states):
    """Written out along each path, cell by cell (arXiv 2312.00752, algorithm 2), and added up."""
    torch.manual_seed(0)
    layer = with_drawn_weights(SelectiveScan2d(6, 5, states=states))
    inner = torch.randn(2, 25, 12).double()
    expected = torch.zeros_like(inner)
    for which, path in enumerate(snake_paths(5).tolist()):
        own = slice(12 * which, 12 * (which + 1))
        rates, passing = -layer.A_logs[own].exp(), layer.Ds[own]
        state = torch.zeros(2, 12, states).double()
        for cell in path:
            u = inner[:, cell]
            step, inward, outward = (u @ layer.x_proj_weight[which].T).split([1, states, states], dim=1)
            step = torch.log1p(torch.exp(step @ layer.dt_projs_weight[which].T + layer.dt_projs_bias[which]))
            state = torch.exp(step[..., None] * rates) * state + (step * u)[..., None] * inward[:, None]
            expected[:, cell] += (state * outward[:, None]).sum(-1) + passing * u
    torch.testing.assert_close(layer.scan(inner), expected, rtol=1e-9, atol=1e-9)


def test_expanding_lays_parts_out_as_cells():
    layer = PatchExpanding(4).double()
    layer.norm = torch.nn.Identity()
    torch.nn.init.eye_(layer.expand.weight[:4])
    x = torch.arange(16.0).double().reshape(1, 2, 2, 4)
    with torch.no_grad():
        layer.expand.weight[4:].zero_()
        expanded = layer(x)
    assert expanded.shape == (1, 4, 4, 2)
    # The first two of four parts, of two channels each, are the upper cells of a patch, from left to right.
    assert torch.equal(expanded[0, 0, :2].flatten(), x[0, 0, 0])
    assert not expanded[0, 1].any()


def test_what_is_far_is_seen_and_the_order_of_places_matters():
    """One number of one corner changes the prediction everywhere, though windows have two latents a side."""
    module = built("lamamba-diff", None).double()
    x = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    other = x.clone()
    other[0, 0, 0, 0] += 1.0
    times, labels = torch.tensor([500]), torch.tensor([1])
    assert ((module(x, times, labels) - module(other, times, labels)).abs().amax(1) > 1e-9).all()
    turned = module(x.flip(3), times, labels).flip(3)
    assert not torch.allclose(turned, module(x, times, labels))


def test_all_channels_of_the_noise_are_guided():
    module = built("lamamba-diff", None).double()
    x, times, labels = torch.randn(2, 4, 4, 4).double(), torch.tensor([900, 30]), torch.tensor([0, 4])
    told, untold = module(x, times, labels), module(x, times, torch.full_like(labels, 5))
    guided = module.guided(x, times, labels, 3.0)
    torch.testing.assert_close(guided[:, :4], (untold + 3.0 * (told - untold))[:, :4])
    torch.testing.assert_close(guided[:, 4:], told[:, 4:])


@pytest.mark.parametrize("variant", METHOD.variants)
def test_variants_fit_their_tokenizers(variant):
    size = METHOD.variants[variant]
    method, _, tokenizer = size.tokenizer.partition("/")
    reader = registry.get_as(TokenizerMethod, method)
    with torch.device("meta"):
        module = METHOD.build(reader.build(**reader.variants[tokenizer].config), **size.config)
    assert module.pos_embed.shape == (1, module.side, module.side, 320)
    assert module.y_embedder.embedding_table.weight.shape == (1001, 1280)
    assert [len(stage.blocks) for stage in (*module.layers, module.mid_layer, *module.layers_up)] == [2] * 5 + [3] * 4


def test_the_vector_s_size_has_its_parameters():
    with torch.device("meta"):
        module = METHOD.build(None, **release_arguments(VECTOR.config))
    assert module.parameters_total == 3_817_886


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": 6}, r"windows of 2 must tile maps of 6 / 2 a side"),
        ({"window_size": 3}, r"windows of 3 must tile maps of 4 / 1 a side"),
        ({"dims": 6}, "dims must be a multiple of 4"),
        ({"num_heads": (3, 2, 2, 2)}, "a stage's width of its num_heads"),
        ({"depths": (2, 2)}, "must have 4 numbers each"),
    ],
)
def test_sizes_that_do_not_go_together(changes, message):
    with pytest.raises(MethodError, match=message):
        METHOD.build(None, **{**CONFIG, **changes})


def test_options_of_the_release_that_no_model_uses():
    with pytest.raises(MethodError, match="skip_concat must be False"):
        release_arguments({**VECTOR.config, "skip_concat": True})
