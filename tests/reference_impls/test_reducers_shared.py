"""What every reducer must do, and must refuse, whatever its idea."""

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference_impls import vits
from tests.reference_impls.small_reducers import METHODS, NOTHING, build, refused_by, served_by
from tokenmark.contracts import BudgetError, MethodError, ReducedModel, UnsupportedBackboneError
from tokenmark.measures.cost import counted_macs

STAGED = [name for name, method in METHODS.items() if hasattr(method.settings, "keep_rate")]
STILL = [name for name in METHODS if NOTHING.get(name, {}) is not None]
EVERY = pytest.mark.parametrize("method", METHODS)


@EVERY
def test_says_what_it_is(method):
    found = METHODS[method]
    assert Path("reference_impls/reducers", method.replace("-", "_") + ".py").is_file()
    assert dataclasses.is_dataclass(found.settings)
    assert "\n" not in found.idea
    assert found.acts
    assert found.knob is None or found.knob.setting in found.settings.__dataclass_fields__


@pytest.mark.parametrize(("method", "backbone"), served_by())
def test_hooks_see_the_promised_schedule(method, backbone):
    model = vits.served(backbone)
    reduced = build(method, model)
    assert isinstance(reduced, ReducedModel)
    images = vits.images_for(model)
    seen = vits.seen_schedule(reduced, images)
    if reduced.adaptive:
        pairs = zip(seen, reduced.schedule, strict=True)
        assert all(here.attention <= most.attention and here.mlp <= most.mlp for here, most in pairs)
    else:
        assert seen == reduced.schedule
    assert reduced(images).shape == (2, 5)


@pytest.mark.parametrize(("method", "backbone"), [(name, model) for name in METHODS for model in refused_by(name)])
def test_refuses_what_lacks_a_class_token_or_has_places(method, backbone):
    with pytest.raises(UnsupportedBackboneError, match=r"no class token|new tokens have no place") as caught:
        build(method, vits.served(backbone))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", STILL)
def test_nothing_reduced_is_the_model_itself(method):
    model = vits.served("dinov2-registers")
    images = vits.images_for(model)
    nothing = NOTHING.get(method, {"keep_rate": 1.0})
    with torch.no_grad():
        torch.testing.assert_close(build(method, model, **nothing)(images), model(images), rtol=1e-9, atol=1e-9)


@EVERY
def test_the_formula_agrees_with_the_counter(method):
    model = vits.served("deit3")
    reduced = build(method, model, "eager")
    image = vits.images_for(model, 1)
    schedule = vits.seen_schedule(reduced, image) if reduced.adaptive else reduced.schedule
    formula = reduced.cost.macs(schedule) + reduced.extra_macs
    assert counted_macs(reduced, image) == pytest.approx(formula, rel=0.01)


@EVERY
def test_counts_the_tokens_of_every_image(method):
    model = vits.served("vit")
    reduced, images = build(method, model), vits.images_for(model, 3)
    counts = reduced.counts(images)
    assert counts.shape == (3, 4, 2)
    promised = torch.tensor([[block.attention, block.mlp] for block in reduced.schedule])
    assert (counts <= promised).all() if reduced.adaptive else (counts == promised).all()


@EVERY
@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(4)))
def test_permuting_the_batch_permutes_the_output(method, order):
    model = vits.served("vit")
    images = vits.images_for(model, 4)
    with torch.no_grad():
        reduced = build(method, model)
        torch.testing.assert_close(reduced(images[order]), reduced(images)[order], rtol=1e-9, atol=1e-9)


@EVERY
def test_an_image_alone_and_no_image_at_all(method):
    model = vits.served("deit-distilled")
    images = vits.images_for(model, 3)
    with torch.no_grad():
        reduced = build(method, model)
        torch.testing.assert_close(reduced(images[:1]), reduced(images)[:1], rtol=1e-9, atol=1e-9)
        assert reduced(images[:0]).shape == (0, 5)


@EVERY
def test_fused_and_eager_attention_agree(method):
    model = vits.served("qk-norm")
    images = vits.images_for(model)
    with torch.no_grad():
        fused, eager = (build(method, model, attention)(images) for attention in ("fused", "eager"))
    torch.testing.assert_close(fused, eager, rtol=1e-9, atol=1e-9)


@EVERY
@pytest.mark.parametrize("attention", ["fused", "eager"])
@pytest.mark.parametrize("backbone", ["vit", "qk-norm"])
def test_runs_in_single_and_low_precision(method, attention, backbone):
    model = vits.served(backbone).float()
    images = vits.images_for(model).float()
    reduced = build(method, model, attention)
    with torch.no_grad():
        assert reduced(images).dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            assert reduced(images).isfinite().all()
        assert build(method, model.bfloat16(), attention)(images.bfloat16()).dtype == torch.bfloat16


@EVERY
def test_traces_without_graph_breaks(method):
    torch._dynamo.reset()
    model = vits.served("dinov2-registers")
    images = vits.images_for(model)
    with torch.no_grad():
        reduced = build(method, model)
        compiled = torch.compile(reduced, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(images), reduced(images), rtol=1e-9, atol=1e-9)


@EVERY
def test_gradients_reach_every_block(method):
    model = vits.served("vit")
    build(method, model)(vits.images_for(model)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@EVERY
def test_tracing_changes_nothing_and_follows_every_token(method):
    model = vits.served("dinov2-registers")
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


@EVERY
@pytest.mark.parametrize("shape", [(2, 3, 64, 80), (2, 3, 80, 80), (2, 1, 64, 64), (3, 64, 64)])
@pytest.mark.parametrize("backbone", ["vit", "dynamic-size"])
def test_refuses_images_of_another_size(method, shape, backbone):
    reduced = build(method, vits.served(backbone))
    with pytest.raises(MethodError, match=r"this model takes \(batch, 3, 64, 64\)") as caught:
        reduced(torch.zeros(shape, dtype=torch.float64))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", STAGED)
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"keep_rate": 0.0}, "above 0"),
        ({"keep_rate": -0.5}, "above 0"),
        ({"keep_rate": 1.5}, "not above 1"),
        ({"keep_rate": float("nan")}, "above 0"),
        ({"keep_rate": (0.5, 0.0)}, "above 0"),
        ({"keep_rate": (0.5, 0.7)}, "not more than the stage before"),
        ({"keep_rate": (0.5,)}, "1 fractions for 2 blocks"),
        ({"keep_rate": 0.1}, "each stage must keep one patch or more"),
        ({"blocks": (1, 4)}, "0 to 3"),
        ({"blocks": (-1, 2)}, "0 to 3"),
        ({"blocks": (3, 1)}, "must rise"),
        ({"blocks": (1, 1)}, "must rise"),
        ({"blocks": ()}, "must rise"),
    ],
)
def test_refuses_an_impossible_keep_rate(method, wrong, reason):
    with pytest.raises(BudgetError, match=reason) as caught:
        build(method, vits.served("vit"), **wrong)
    assert "\n" not in str(caught.value)
