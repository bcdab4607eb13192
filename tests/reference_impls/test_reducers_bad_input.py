"""What every reducer does with budgets that cannot be, and with images that are odd: it says so, or it is right."""

import pytest
import torch

from reference_impls.layers.stages import Stages
from tests.reference_impls import vits
from tests.reference_impls.small_reducers import BATCH_DEPENDENT, METHODS, build
from tokenmark.contracts import BudgetError, MethodError

EVERY = pytest.mark.parametrize("method", METHODS)
ALONE = pytest.mark.parametrize("method", [name for name in METHODS if name not in BATCH_DEPENDENT])
OF_THE_RELEASE = ("diffrate",)
"""Methods whose knob chooses among schedules that were searched for the release's models: a small one has none."""
NAN, INF = float("nan"), float("inf")
NEVER = {"count": (-1, -1000), "rate": (0.0, -0.5, 1.5, NAN, INF, -INF), "values": (-1, NAN, -INF)}
"""For each kind of knob what no model can do."""
TOO_MUCH = {"count": (17, 10**6), "values": (10**6, INF)}
"""What no small model can do in full, though a release may do as much of it as can be."""


def wrong(values):
    """Every method with a knob, and each of the values that its kind of knob has."""
    knobs = {name: method.knob for name, method in METHODS.items() if method.knob and name not in OF_THE_RELEASE}
    kinds = {name: knob.values if isinstance(knob.values, str) else "values" for name, knob in knobs.items()}
    return [(name, knobs[name].setting, value) for name, kind in kinds.items() for value in values.get(kind, ())]


def turned(method, setting, value):
    """The method on a small model, with its knob at `value`."""
    return build(method, vits.kept("vit"), **{setting: value})


@pytest.mark.parametrize(("method", "setting", "value"), wrong(NEVER))
def test_refuses_what_cannot_be(method, setting, value):
    with pytest.raises(BudgetError) as caught:
        turned(method, setting, value)
    assert setting in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("method", "setting", "value"), wrong(TOO_MUCH))
def test_refuses_too_much_or_keeps_what_it_promises(method, setting, value):
    try:
        reduced = turned(method, setting, value)
    except BudgetError as error:
        reduced, said = None, str(error)
    if reduced is None:
        assert setting in said
        assert "\n" not in said
        return
    images = vits.images_for(reduced.model)
    counts = reduced.counts(images)
    assert (counts > reduced.backbone.prefix).all()
    assert (counts <= torch.tensor([[block.attention, block.mlp] for block in reduced.schedule])).all()
    assert reduced(images).isfinite().all()


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if issubclass(method.settings, Stages)])
@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
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
def test_refuses_impossible_stages(method, wrong, reason):
    with pytest.raises(BudgetError, match=reason) as caught:
        build(method, vits.kept("vit"), **wrong)
    assert "\n" not in str(caught.value)


@EVERY
@pytest.mark.parametrize("shape", [(2, 3, 64, 80), (2, 3, 80, 80), (2, 1, 64, 64), (3, 64, 64)])
@pytest.mark.parametrize("backbone", ["vit", "dynamic-size"])
def test_refuses_images_of_another_size(method, shape, backbone):
    reduced = build(method, vits.kept(backbone))
    with pytest.raises(MethodError, match=r"this model takes \(batch, 3, 64, 64\)") as caught:
        reduced(torch.zeros(shape, dtype=torch.float64))
    assert "\n" not in str(caught.value)


@ALONE
def test_an_image_alone_and_no_image_at_all(method):
    model = vits.kept("deit-distilled")
    images = vits.images_for(model, 3)
    with torch.no_grad():
        reduced = build(method, model)
        torch.testing.assert_close(reduced(images[:1]), reduced(images)[:1], rtol=1e-9, atol=1e-9)
        assert reduced(images[:0]).shape == (0, 5)


@EVERY
@pytest.mark.parametrize(("attention", "backbone"), [("fused", "qk-norm"), ("eager", "vit")])
def test_runs_in_single_and_low_precision(method, attention, backbone):
    model = vits.served(backbone).float()
    images = vits.images_for(model).float()
    reduced = build(method, model, attention)
    with torch.no_grad():
        assert reduced(images).dtype == torch.float32
        for low in (torch.bfloat16, torch.float16):
            with torch.autocast("cpu", low):
                assert reduced(images).isfinite().all()
        for low in (torch.bfloat16, torch.float16):
            logits = build(method, model.to(low), attention)(images.to(low))
            assert logits.dtype == low
            assert logits.isfinite().all()


@ALONE
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("backbone", ["vit", "dinov3"])
def test_an_image_that_is_no_number_gives_none_and_spoils_no_other(method, backbone, value):
    model = vits.kept(backbone)
    images = vits.images_for(model, 3)
    broken = images.clone()
    broken[1] = value
    with torch.no_grad():
        try:
            reduced = build(method, model)
        except MethodError:  # a backbone that it does not serve
            return
        logits = reduced(broken)
        assert not logits[1].isfinite().any()
        torch.testing.assert_close(logits[[0, 2]], reduced(images)[[0, 2]], rtol=1e-9, atol=1e-9)


@ALONE
def test_one_pixel_that_is_no_number_is_never_a_finite_answer(method):
    model = vits.kept("vit")
    images = vits.images_for(model, 2)
    images[0, 1, 40, 9] = NAN
    with torch.no_grad():
        logits = build(method, model)(images)
    assert logits[0].isnan().all()
    assert logits[1].isfinite().all()
