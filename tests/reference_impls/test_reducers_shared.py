"""What every reducer must do, and must refuse, whatever its idea."""

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference_impls.layers.stages import Stages
from tests.long import takes_long
from tests.reference_impls import vits
from tests.reference_impls.small_reducers import (
    COMPILES_NOT,
    INSIDE_ATTENTION,
    METHODS,
    NOTHING,
    UNREAD,
    build,
    refused_by,
    served_by,
)
from tokenmark.contracts import ReducedModel, UnsupportedBackboneError
from tokenmark.measures.cost import counted_macs

STILL = [name for name in METHODS if NOTHING.get(name, {}) is not None]
HOOKED = (
    *("vit", "deit-distilled", "deit3", "dinov2-registers", "average", "mae", "oblong", "eva02", "rope-mixed"),
    *("dinov3", "beit", "open-clip", "clip-timm", "lv-vit"),
)
"""Models that differ in what a method may trip over; docs/backbones.md is of all families."""
TRACED = [
    pytest.param(name, marks=() if name in {"tome", "topk", "evit", "zero-tprune", "vwt-inter"} else takes_long)
    for name, method in METHODS.items()
    if name not in COMPILES_NOT and not method.trained
]
"""Of every kind one in each run of the tests, all of them by `nox -s tests-long`: tracing takes seconds."""
EVERY = pytest.mark.parametrize("method", METHODS)


@EVERY
def test_says_what_it_is(method):
    found = METHODS[method]
    assert Path("reference_impls/reducers", method.replace("-", "_") + ".py").is_file()
    assert dataclasses.is_dataclass(found.settings)
    assert "\n" not in found.idea
    assert found.acts
    assert found.knob is None or found.knob.setting in found.settings.__dataclass_fields__


@pytest.mark.parametrize(("method", "backbone"), [pair for pair in served_by() if pair[1] in HOOKED])
def test_hooks_see_the_promised_schedule(method, backbone):
    model = vits.kept(backbone)
    reduced = build(method, model)
    assert isinstance(reduced, ReducedModel)
    images = vits.images_for(model)
    seen = vits.seen_schedule(reduced, images, inside=method in INSIDE_ATTENTION)
    if reduced.adaptive:
        pairs = zip(seen, reduced.schedule, strict=True)
        assert all(here.attention <= most.attention and here.mlp <= most.mlp for here, most in pairs)
    else:
        assert seen == reduced.schedule
    assert reduced(images).shape == (2, 5)


@pytest.mark.parametrize(("method", "backbone"), [(name, model) for name in METHODS for model in refused_by(name)])
def test_refuses_what_lacks_a_class_token_or_has_places(method, backbone):
    with pytest.raises(
        UnsupportedBackboneError, match=r"no class token|new tokens have no place|attention pooling"
    ) as caught:
        build(method, vits.kept(backbone))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", STILL)
def test_nothing_reduced_is_the_model_itself(method):
    model = vits.kept("dinov2-registers")
    images = vits.images_for(model)
    nothing = NOTHING.get(method, {"keep_rate": 1.0})
    with torch.no_grad():
        torch.testing.assert_close(build(method, model, **nothing)(images), model(images), rtol=1e-9, atol=1e-9)


@EVERY
def test_the_formula_agrees_with_the_counter(method):
    model = vits.kept("deit3")
    reduced = build(method, model, "eager")
    image = vits.images_for(model, 1)
    schedule = vits.seen_schedule(reduced, image) if reduced.adaptive else reduced.schedule
    formula = reduced.cost.macs(schedule) + reduced.extra_macs
    assert counted_macs(reduced, image) == pytest.approx(formula, rel=0.01)


@EVERY
def test_counts_the_tokens_of_every_image(method):
    model = vits.kept("vit")
    reduced, images = build(method, model), vits.images_for(model, 3)
    counts = reduced.counts(images)
    assert counts.shape == (3, 4, 2)
    promised = torch.tensor([[block.attention, block.mlp] for block in reduced.schedule])
    assert (counts <= promised).all() if reduced.adaptive else (counts == promised).all()


@EVERY
@settings(max_examples=2, deadline=None)
@given(order=st.permutations(range(4)))
def test_permuting_the_batch_permutes_the_output(method, order):
    model = vits.kept("vit")
    images = vits.images_for(model, 4)
    with torch.no_grad():
        reduced = build(method, model)
        torch.testing.assert_close(reduced(images[order]), reduced(images)[order], rtol=1e-9, atol=1e-9)


@EVERY
def test_fused_and_eager_attention_agree(method):
    model = vits.kept("qk-norm")
    images = vits.images_for(model)
    with torch.no_grad():
        fused, eager = (build(method, model, attention)(images) for attention in ("fused", "eager"))
    torch.testing.assert_close(fused, eager, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", TRACED)
def test_traces_without_graph_breaks(method):
    torch._dynamo.reset()
    model = vits.kept("vit")
    images = vits.images_for(model)
    with torch.no_grad():
        one_stage = {"blocks": (1,)} if issubclass(METHODS[method].settings, Stages) else {}
        reduced = build(method, model, **one_stage)
        compiled = torch.compile(reduced, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(images), reduced(images), rtol=1e-9, atol=1e-9)


@EVERY
def test_gradients_reach_every_block(method):
    model = vits.served("vit")
    build(method, model)(vits.images_for(model)).sum().backward()
    read = [each for name, each in model.named_parameters() if not name.startswith(UNREAD.get(method, ()))]
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in read)


@EVERY
def test_tracing_changes_nothing_and_follows_every_token(method):
    model = vits.kept("dinov2-registers")
    images = vits.images_for(model)
    with torch.no_grad():
        reduced = build(method, model)
        trace = reduced.trace(images)
        assert torch.equal(trace.logits, reduced(images))
    for tokens, source in zip(trace.tokens, trace.sources, strict=True):
        assert source.shape == trace.sources[0].shape
        assert -1 <= source.min() <= source.max() < tokens.shape[1]


@EVERY
def test_refuses_a_backbone_that_is_not_served(method):
    model = vits.VisionTransformer(patch_drop_rate=0.5, img_size=64, **vits.SMALL)
    with pytest.raises(UnsupportedBackboneError, match="drops patches"):
        build(method, model)
