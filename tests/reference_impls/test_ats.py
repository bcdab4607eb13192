"""ATS: sampling against plain loops, images that do not see each other when packed, and what it refuses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impls.layers.padding import Packed
from reference_impls.reducers.ats import METHOD, AtsSettings, sampled
from tests.reference_impls import vits
from tokenmark.contracts import BudgetError, UnsupportedBackboneError

BLOCKS = (1, 2, 3)


def built(model, attention="fused", **changes):
    """The reduced model."""
    return METHOD.build(model, AtsSettings(**{"blocks": BLOCKS} | changes), attention=attention)


def oracle(score, samples, dead):
    """The patches that one image keeps, by plain loops; `dead` rows have a score of 0."""
    order = sorted(range(len(score)), key=lambda i: (not dead[i], score[i], i))
    running = np.cumsum(score[order] / score.sum())
    running = (running - running.min()) / (running.max() - running.min())
    points = np.linspace(running[running > 0].min(), 1.0, samples)
    ranks = sorted({min(range(len(order)), key=lambda i, at=at: (abs(running[i] - at), i)) for at in points})
    return [order[rank] for rank in ranks]


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 30), st.integers(0, 9), st.integers(2, 40), st.integers(0, 10**6))
def test_sampling_equals_plain_loops(live, filling, samples, seed):
    rng = np.random.default_rng(seed)
    score = rng.random((2, live + filling)) ** 4 + 1e-3
    dead = np.zeros_like(score, dtype=bool)
    for image in range(2):
        dead[image, rng.permutation(live + filling)[:filling]] = True
    score[dead] = 0.0
    index, alive = sampled(torch.from_numpy(score), samples, torch.from_numpy(dead), alone=False)
    for image in range(2):
        assert index[image][alive[image]].tolist() == oracle(score[image], samples, dead[image])
        assert alive[image].tolist() == sorted(alive[image].tolist(), reverse=True)
    index, alive = sampled(torch.from_numpy(score), samples, torch.from_numpy(dead), alone=True)
    for image in range(2):
        here = np.flatnonzero(~dead[image])
        kept = oracle(score[image, here], samples, np.zeros(live, dtype=bool))
        assert index[image][alive[image]].tolist() == here[kept].tolist()


def test_the_lowest_of_a_full_image_is_never_kept_and_the_last_one_always():
    index, alive = sampled(torch.tensor([[4.0, 1.0, 3.0, 2.0]]), 50, None, alone=False)
    assert index[alive].tolist() == [3, 2, 0]
    for few in ([[5.0]], [[1.0, 2.0]], [[0.0, 0.0]]):
        assert sampled(torch.tensor(few), 9, None, alone=False)[1].sum() == 1


PACKED = ("deit-distilled", "dinov2-registers", "dinov3", "beit", "maximum", "average-beside-class", "lv-vit")


@pytest.mark.parametrize("attention", ["fused", "eager"])
@pytest.mark.parametrize("name", PACKED)
def test_packed_every_image_is_as_if_alone(name, attention):
    model = vits.served(name)
    images = vits.images_for(model, 6) * torch.linspace(0.2, 3.0, 6, dtype=torch.float64)[:, None, None, None]
    packed = built(model, attention, packed=True)
    with torch.no_grad():
        together, counts = packed(images), packed.counts(images)
        assert counts[:, -1, 1].unique().numel() > 1, "all images keep as many: nothing is shown"
        for image in range(6):
            alone = images[image : image + 1]
            torch.testing.assert_close(together[image : image + 1], packed(alone), rtol=1e-9, atol=1e-9)
            released = built(model)
            assert torch.equal(released.counts(alone), counts[image : image + 1])
            torch.testing.assert_close(together[image : image + 1], released(alone), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("changes", [{}, {"packed": True}, {"trim": False}])
def test_no_image_at_all(changes):
    model = vits.served("maximum")
    assert built(model, **changes)(vits.images_for(model)[:0]).shape == (0, 5)


def test_packed_rows_are_taken_and_put_back():
    alive = torch.tensor([[True, True, False], [True, False, False]])
    x = torch.arange(12.0).reshape(2, 3, 2)
    packed = Packed.of(alive)
    assert packed.take(x).tolist() == [[[0, 1], [2, 3], [6, 7]]]
    assert torch.equal(packed.put(packed.take(x)), x * alive[..., None])


def test_rows_that_no_image_needs_are_cut_unless_told():
    model = vits.served("vit")
    images = vits.images_for(model, 4)
    trimmed, whole = built(model), built(model, trim=False)
    longest = [x.shape[1] for x in trimmed.trace(images).tokens]
    assert longest == trimmed.counts(images)[:, :, 1].amax(dim=0).tolist()
    assert [x.shape[1] for x in whole.trace(images).tokens] == [17] * 4
    assert longest[-1] < longest[0] == 17
    gone = trimmed.trace(images).sources[-1] < 0
    assert torch.equal((~gone).sum(dim=1), trimmed.counts(images)[:, -1, 1])


def test_with_all_rows_it_traces_without_graph_breaks():
    torch._dynamo.reset()
    model = vits.served("vit")
    images = vits.images_for(model)
    with torch.no_grad():
        reduced = built(model, trim=False)
        compiled = torch.compile(reduced, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(images), reduced(images), rtol=1e-9, atol=1e-9)


def test_fewer_samples_keep_fewer_patches():
    model = vits.served("vit")
    images = vits.images_for(model)
    reduced = built(model, sample_rate=0.25)
    assert [block.mlp for block in reduced.schedule] == [17, 5, 4, 3]
    assert (reduced.counts(images)[:, 1:, 1] <= 5).all()


def test_gradients_reach_the_model_when_packed():
    model = vits.served("vit")
    built(model.train(), packed=True)(vits.images_for(model)).sum().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters())


def test_packed_runs_in_low_precision():
    model = vits.served("qk-norm").float()
    images = vits.images_for(model).float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert built(model, packed=True)(images).isfinite().all()
    with torch.no_grad():
        assert built(model.bfloat16(), packed=True)(images.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("rate", [0.0, -1.0, 1.5, 0.01, float("nan")])
def test_refuses_no_sample_and_more_than_patches(rate):
    with pytest.raises(BudgetError, match="must be one sample or more") as caught:
        built(vits.served("vit"), sample_rate=rate)
    assert "\n" not in str(caught.value)


def test_refuses_blocks_that_are_not_there_and_pooling_by_attention():
    with pytest.raises(BudgetError, match="0 to 3"):
        built(vits.served("vit"), blocks=(3, 4))
    with pytest.raises(UnsupportedBackboneError, match="attention pooling"):
        built(vits.served("eva02-enormous"))
