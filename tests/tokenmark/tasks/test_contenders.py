"""Who is timed: the same weights on other paths, and references that remember nothing."""

import pytest
import torch

from tests.tokenmark import make
from tokenmark import backbones, build
from tokenmark.errors import AuditError
from tokenmark.measures import attention, audit
from tokenmark.shelf import Shelf
from tokenmark.tasks import contenders
from tokenmark.tasks.contenders import EAGER, FUSED, METHOD, Contenders

CPU = torch.device("cpu")
IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def of(method="tome", **changes):
    facts = {
        "task": "classification",
        "variant": None,
        "model": "vit-mini",
        "settings": {"r": 4} if method == "tome" else {},
    }
    return Contenders(make.spec(method=method, **{**facts, **changes}), CPU)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["none", "tome"])
def test_all_pass_the_audit_in_their_precision(precision, method):
    made = of(method, precision=precision)
    with torch.inference_mode():
        outputs = audit.check(made.all(compile_too=False), IMAGES, audit.TOLERANCES[made.dtype])
    assert list(outputs) == [METHOD, EAGER, FUSED]
    assert {output.dtype for output in outputs.values()} == {getattr(torch, precision)}
    assert torch.equal(outputs[METHOD], outputs[FUSED]) == (method == "none")


def test_eager_and_fused_are_two_paths_on_one_set_of_weights():
    made = of()
    calls = made.all(compile_too=False)
    with torch.inference_mode():
        assert attention.kernels(calls[EAGER].call, IMAGES) == {}
        assert sum(attention.kernels(calls[FUSED].call, IMAGES).values()) == 12
    places = [{parameter.data_ptr() for parameter in calls[name].call.parameters()} for name in (METHOD, EAGER, FUSED)]
    assert places[0] == places[1] == places[2]


def test_a_method_that_remembers_its_answer_is_found(monkeypatch):
    """Its own module cannot serve as its reference: the audit builds another."""
    reduced = build.reduced

    def remembering(*arguments, **named):
        model = reduced(*arguments, **named)
        forward, kept = model.forward, []
        model.forward = lambda images: kept[0] if kept else kept.append(forward(images)) or kept[0]
        return model

    monkeypatch.setattr(build, "reduced", remembering)
    calls = of().all(compile_too=False)
    images = IMAGES.clone()
    with torch.inference_mode():
        before = audit.check(calls, images, audit.TOLERANCES[torch.float32])
        with pytest.raises(AuditError, match="'method' does not give what a fresh, untimed call"):
            audit.check_timed(calls, images, before, before, audit.TOLERANCES[torch.float32])


def test_a_compiler_that_fails_is_a_warning_of_one_line(monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no compiler\nmore")

    monkeypatch.setattr(contenders, "compiled", fail)
    made = of()
    assert list(made.all(compile_too=True)) == [METHOD, EAGER, FUSED]
    assert made.warnings == ["no compiled baseline: no compiler"]


def test_a_compiled_baseline_is_compared_with_the_fused_one(monkeypatch):
    asked = []
    monkeypatch.setattr(contenders, "compiled", lambda *arguments: asked.append(arguments) or torch.neg)
    made = of(precision="bfloat16", seed=3)
    assert made.all(compile_too=True)["compiled"] == audit.Contender(torch.neg, FUSED)
    assert asked == [("vit-mini", CPU, torch.bfloat16, 3, Shelf())]


def test_random_weights_follow_the_seed():
    one, same, other = (backbones.load("test_vit.random", CPU, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.head.weight, other.head.weight)
