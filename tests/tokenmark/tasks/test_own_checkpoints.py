"""Fine-tuned reducers and classifiers of their own: their released checkpoints, as files that lie on the shelf."""

import dataclasses

import pytest
import torch

from tests.tokenmark import make
from tokenmark import backbones, build, jobs, plan, registry
from tokenmark.contracts import ClassifierMethod, ReducerMethod, Variant
from tokenmark.errors import MissingWeightsError, SuiteError, UnknownNameError, WeightsError
from tokenmark.shelf import Shelf
from tokenmark.suites import Suite
from tokenmark.tasks.base import Context
from tokenmark.tasks.classification import CLASSIFICATION
from tokenmark.tasks.contenders import Contenders

CPU = torch.device("cpu")
TUNED = Variant(config={"model": "vit-mini", "settings": {"keep_rate": 0.5, "blocks": [2, 4]}})
SMALL = Variant(config={"img_size": 32, "embed_dim": 8, "depth": 1, "num_heads": 2, "token_dim": 6, "num_classes": 10})


@pytest.fixture
def known(monkeypatch):
    """DynamicViT with a checkpoint on the small model, and a small T2T-ViT."""
    methods = {
        name: dataclasses.replace(registry.get(name), variants={"made": variant})
        for name, variant in (("dynamicvit", TUNED), ("t2t-vit", SMALL))
    }
    get = registry.get
    monkeypatch.setattr(registry, "get", lambda name: methods.get(name) or get(name))
    return methods


def released(method, module, folder):
    """The module's state as its release writes it, put on a shelf by hand."""
    state = module.state_dict()
    keys = {own.removeprefix("model.").replace("reduction.predictors", "score_predictor"): own for own in state}
    back = {key: state[own] for key, own in keys.items() if method.layout.module_key(key) == own}
    assert len(back) == len(state), "a key that the layout does not lead back to the module's"
    wrapper = method.layout.wrappers[0] if method.layout.wrappers else None
    folder.mkdir(exist_ok=True)
    torch.save({wrapper: back} if wrapper else back, folder / f"{method.id}--made.pth")
    return Shelf(folder)


def tuned(known, folder):
    torch.manual_seed(3)
    method = known["dynamicvit"]
    model = backbones.get("vit-mini").build()
    module = method.build(model.eval(), build.settings_of(method, TUNED.config["settings"]))
    return module, released(method, module, folder)


def spec(**changes):
    return make.spec(**{"task": "classification", "measures": ("accuracy", "cost"), "samples": 20, **changes})


def test_a_fine_tuned_reducer_is_measured_beside_its_classifier(known, tmp_path):
    module, shelf = tuned(known, tmp_path / "weights")
    made = Contenders(spec(method="dynamicvit", variant="made", model="vit-mini"), CPU, shelf)
    images = torch.rand(3, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(made.method(images), module((images - 0.5) / 0.5))
        plain = backbones.Normalised(made.backbone, backbones.load("vit-mini", CPU)).eval()
        assert torch.equal(made.base(images), plain(images))


def test_a_classifier_of_its_own_is_measured_alone(known, tmp_path):
    torch.manual_seed(0)
    method = known["t2t-vit"]
    shelf = released(method, method.build(**SMALL.config), tmp_path / "weights")
    asked = spec(method="t2t-vit", variant="made", measures=("accuracy", "cost", "throughput"), timing={
        "batches": [1], "min_seconds": 0.0, "min_rounds": 2, "warm_seconds": 0.0, "max_warm_seconds": 0.0
    })  # fmt: skip
    session = CLASSIFICATION.open(asked, Context(CPU, tmp_path, shelf))
    session.step(0, 20)
    values = {value.name: value.value for value in session.finish(str).values}
    assert values.keys() >= {"top1", "top5", "macs", "macs_counted", "parameters", "images_per_second"}
    assert not {"top1_difference", "speedup_best", "tokens_left"} & values.keys()
    assert values["macs"] == values["macs_counted"] > 0


def test_a_suite_names_them_by_variant(known, tmp_path):
    _, shelf = tuned(known, tmp_path / "weights")
    (planned,) = plan.plan(suite(method="dynamicvit", variant="made"), "made", Context(CPU, tmp_path, shelf), "here")
    assert (planned.spec.variant, planned.spec.model) == ("made", "vit-mini")
    assert planned.spec.title == "dynamicvit/made"
    assert planned.spec.weights.keys() == {"dynamicvit/made", "vit-mini"}


def suite(**job):
    return Suite.model_validate(
        {
            "version": 1,
            "title": "made",
            "protocol": "mini",
            "batch_size": 10,
            "timing": {"batches": [1], "min_seconds": 0.1, "min_rounds": 2},
            "jobs": [{"task": "classification", "measures": ["accuracy", "cost"], **job}],
        }
    )


def test_a_checkpoint_that_is_not_here_is_one_line_that_says_where_to_put_it(known, tmp_path):
    (planned,) = plan.plan(
        suite(method="t2t-vit", variant="made"), "made", Context(CPU, tmp_path, Shelf(tmp_path / "none")), "here"
    )
    assert isinstance(planned.problem, MissingWeightsError)
    assert "put it at" in str(planned.problem)
    assert "t2t-vit--made" in str(planned.problem)


def test_a_checkpoint_of_another_size_is_refused(known, tmp_path):
    shelf = released(known["t2t-vit"], known["t2t-vit"].build(**{**SMALL.config, "depth": 2}), tmp_path / "weights")
    with pytest.raises(WeightsError, match="unexpected"):
        build.classifier("t2t-vit", "made", shelf)


@pytest.mark.parametrize(
    ("job", "error", "message"),
    [
        ({"method": "dynamicvit", "model": "vit-mini"}, SuiteError, "weights of its own, and no accuracy untrained"),
        ({"method": "dynamicvit", "variant": "mad"}, UnknownNameError, "did you mean made"),
        ({"method": "t2t-vit", "model": "vit-mini"}, Exception, "is a classifier, but a reducer is needed"),
    ],
)
def test_what_cannot_be_measured(known, job, error, message):
    del known
    with pytest.raises(error, match=message):
        jobs.check_names(suite(**job))


@pytest.mark.parametrize("job", [{"model": "vit-mini", "variant": "made"}, {}, {"variant": "made", "budget": ["60%"]}])
def test_a_job_names_a_model_or_a_variant(job):
    with pytest.raises(ValueError, match=r"either a model, or a variant|settings of its own"):
        suite(method="dynamicvit", **job)


def test_kinds():
    assert isinstance(registry.get("dynamicvit"), ReducerMethod)
    assert isinstance(registry.get("t2t-vit"), ClassifierMethod)
