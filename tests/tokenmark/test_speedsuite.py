"""From a command line to a suite of cost and throughput, and the settings that nobody gave."""

import pytest

from tokenmark import budgets, plan, speedsuite
from tokenmark.errors import SuiteError, UnknownNameError
from tokenmark.tasks.base import Context

ASKED = {
    "models": "deit_tiny_patch16_224",
    "tokenizers": "",
    "methods": "tome,none",
    "given": (),
    "batches": "1,64",
    "precision": "float32",
    "seed": 0,
    "min_seconds": 2.0,
    "min_rounds": 30,
    "compiled": False,
}


def suite(**changes):
    return speedsuite.suite(**{**ASKED, **changes})


def test_every_method_on_every_model():
    made = suite(models="deit_tiny_patch16_224, vit_large_patch16_224", precision="bfloat16", compiled=True, seed=3)
    assert [(job.model, job.method, job.settings) for job in made.jobs] == [
        ("deit_tiny_patch16_224.random", "tome", {"r": 16}),
        ("deit_tiny_patch16_224.random", "none", {}),
        ("vit_large_patch16_224.random", "tome", {"r": 8}),
        ("vit_large_patch16_224.random", "none", {}),
    ]
    assert {job.precision for job in made.jobs} == {"bfloat16"}
    assert all(job.measures == ["cost", "throughput"] for job in made.jobs)
    assert (made.protocol, made.seed, made.timing.batches, made.timing.compiled) == ("throughput", 3, [1, 64], True)


def test_given_settings_are_those_of_their_method():
    made = suite(methods="tome,topk", given=("tome.r=4", "topk.keep_rate=0.5", "tome.proportional=false"))
    assert made.jobs[0].settings == {"r": 4, "proportional": False}
    assert made.jobs[1].settings == {"keep_rate": 0.5}
    assert suite(methods="topk", given=("topk.blocks=[2, 4]",)).jobs[0].settings["blocks"] == [2, 4]


def test_tokenizers_are_timed_beside_models_or_alone():
    made = suite(models="", tokenizers="titok/s128, maskgit-vq, titok/s128", precision="bfloat16")
    assert [(job.task, job.method, job.variant, job.precision) for job in made.jobs] == [
        ("tokenization", "titok", "s128", "bfloat16"),
        ("tokenization", "maskgit-vq", "imagenet-f16-256", "bfloat16"),
    ]
    assert len(suite(tokenizers="titok/s128").jobs) == 3


def test_names_stand_once_and_may_have_their_tag():
    made = suite(models="test_vit,test_vit.random", methods="none,,none")
    assert [(job.model, job.method) for job in made.jobs] == [("test_vit.random", "none")]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"models": "deit_tny_patch16_224"},
            UnknownNameError,
            "unknown timm model .*did you mean deit_tiny_patch16_224",
        ),
        ({"models": "#"}, UnknownNameError, "unknown timm model '#': there are: .* and 1,[0-9]+ others$"),
        ({"models": "hf-hub:timm/x"}, UnknownNameError, "unknown timm model"),
        ({"methods": "tme"}, UnknownNameError, "unknown method 'tme'"),
        ({"methods": "jpeg"}, Exception, "'jpeg' is a tokenizer, but a reducer is needed"),
        ({"models": " , "}, SuiteError, "--models is empty"),
        ({"models": ""}, SuiteError, "nothing to time: give --models, --tokenizers"),
        ({"tokenizers": "titk"}, UnknownNameError, "unknown method 'titk': did you mean titok"),
        ({"tokenizers": "tome"}, Exception, "'tome' is a reducer, but a tokenizer is needed"),
        ({"batches": "1,x"}, SuiteError, "--batches: 'x' is not a number"),
        ({"batches": "0"}, SuiteError, "timing.batches.0: .*greater"),
        ({"given": ("tome",)}, SuiteError, "--set tome: write METHOD.SETTING=VALUE"),
        ({"given": ("topk.r=1",)}, SuiteError, "--set topk.r=1: topk is not among the methods to measure"),
        ({"min_seconds": float("inf")}, SuiteError, "timing.min_seconds: .*finite"),
        ({"min_rounds": 1}, SuiteError, "timing.min_rounds: .*greater"),
        ({"seed": -1}, SuiteError, "seed: .*greater"),
    ],
)
def test_mistakes(changes, error, message):
    with pytest.raises(error, match=message) as caught:
        suite(**changes)
    assert "\n" not in str(caught.value)


def test_an_unknown_setting_stops_before_anything_is_measured(tmp_path):
    with pytest.raises(UnknownNameError, match="unknown setting of tome 'rr': did you mean r"):
        plan.plan(suite(given=("tome.rr=4",)), "throughput", Context(None, tmp_path), "site")


def test_usual_settings_follow_the_depth():
    assert budgets.usual("tome", "vit-mini") == {"r": 64 // 12}
    assert budgets.usual("topk", "vit-mini") == {"keep_rate": 0.7}
    assert budgets.usual("topk", "vit_large_patch16_224.random") == {"keep_rate": 0.7, "blocks": [6, 12, 18]}
    assert budgets.usual("none", "vit_large_patch16_224.random") == {}
    assert budgets.usual("tome", "resnet18.random") == {}
